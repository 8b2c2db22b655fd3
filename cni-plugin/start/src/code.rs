//! The code that a usual call runs through, asked for before it is run.
//!
//! A process that starts anew finds nothing of its code in the processor's caches, and would wait for each line as it comes to it: an
//! ADD for some 320, one after the other. Asked for together, they come side by side, while the first of them are at work
//! already. They lie among others that a failure or another verb needs; twice as many are asked for, which is cheaper than to know better.

use core::arch::asm;

/// The smallest line of the two architectures: where lines are longer, some are asked for twice, which costs nothing.
const LINE: usize = 64;

unsafe extern "C" {
    /// Where that code begins; see `program.ld`.
    static usual_code_begins: u8;
    /// Where it ends.
    static usual_code_ends: u8;
}

/// Asks for all of it.
pub(crate) fn prefetch() {
    let (mut line, end) = (&raw const usual_code_begins, &raw const usual_code_ends);
    while line.addr() < end.addr() {
        ask_for(line);
        line = line.wrapping_add(LINE);
    }
}

fn ask_for(line: *const u8) {
    // SAFETY: a hint: it reads nothing into the program, and does nothing at all where the address is not mapped.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("prefetcht0 [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("prfm plil2keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
}
