/* The smallest process there is: no libc, nothing to load, and its first act is to end. */

__attribute__((noreturn)) void _start(void) {
#if defined(__x86_64__)
    __asm__ volatile("xor %edi, %edi\n\tmov $231, %eax\n\tsyscall");
#elif defined(__aarch64__)
    __asm__ volatile("mov x0, #0\n\tmov x8, #94\n\tsvc #0");
#else
#error "exit_group of this architecture is not known here"
#endif
    __builtin_unreachable();
}
