//! The two system calls that rustix leaves to a libc.

use core::arch::asm;

/// Ends the process.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: exit_group(status) does not return and touches no memory.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn, nostack))
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") 94, in("x0") status, options(noreturn, nostack))
    }
}

/// Makes writing to a pipe that nobody reads an error, where it would otherwise end the process without a word.
pub(crate) fn ignore_sigpipe() {
    const SIGPIPE: usize = 13;
    /// `struct sigaction` of the kernel: handler, flags, restorer, mask, on both architectures.
    const IGNORE: [usize; 4] = [1, 0, 0, 0];
    const MASK_BYTES: usize = 8;
    // SAFETY: rt_sigaction(SIGPIPE, &IGNORE, NULL, 8) reads the structure and writes no memory of ours; SIG_IGN brings
    // no handler, so none of our code will ever run because of it. It cannot fail with these arguments, and if it did
    // a SIGPIPE would do what it does anyway.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") 13_usize => _, in("rdi") SIGPIPE, in("rsi") &IGNORE, in("rdx") 0_usize,
            in("r10") MASK_BYTES, lateout("rcx") _, lateout("r11") _, options(nostack, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") 134_usize, inlateout("x0") SIGPIPE => _, in("x1") &IGNORE, in("x2") 0_usize,
            in("x3") MASK_BYTES, options(nostack, readonly));
    }
}
