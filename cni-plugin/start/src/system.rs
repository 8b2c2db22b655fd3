//! The system calls that rustix leaves to a libc, and the clock, for which rustix would first look up the kernel's own
//! code for it (vDSO): that takes twenty times as long as one call.

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

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_ns() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    // `struct timespec` of the kernel: seconds and nanoseconds, neither of which this clock ever has below zero.
    let mut time = [0_u64; 2];
    // SAFETY: clock_gettime(CLOCK_MONOTONIC, &time) writes the structure, whose size it knows, and nothing else of ours.
    // It cannot fail with these arguments, and if it did the time would stay zero, which is older than any other.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") 228_usize => _, in("rdi") CLOCK_MONOTONIC, in("rsi") &raw mut time,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") 113_usize, inlateout("x0") CLOCK_MONOTONIC => _, in("x1") &raw mut time, options(nostack));
    }
    let [seconds, nanoseconds] = time;
    // 64 bits last for 584 years.
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds)
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
