//! From the kernel's first instruction to the library and out again.

use core::arch::naked_asm;
use core::ffi::{CStr, c_char};
use core::fmt::{self, Write};
use core::iter;
use core::panic::PanicInfo;

use dotfour_plugin::CniVersion;
use rustix::fd::BorrowedFd;

use crate::system;

/// The entry point. The kernel leaves everything on the stack (argument count, arguments, NULL, environment, NULL) and
/// no return address; this hands on where that is and makes the frame that a function expects.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    // Both ABIs promise a stack pointer that is a multiple of 16 here, and want it so at a call. Frame pointer and
    // link register are zeroed to mark the outermost frame.
    #[cfg(target_arch = "x86_64")]
    naked_asm!("xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {main}", "ud2", main = sym main);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("mov x29, xzr", "mov x30, xzr", "mov x0, sp", "bl {main}", "brk 1", main = sym main);
}

/// # Safety
/// `stack` is the stack pointer as the kernel left it.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    let started_ns = system::monotonic_ns();
    crate::code::prefetch();
    crate::ARENA.touch();
    system::ignore_sigpipe();
    // SAFETY: the first word is the number of arguments; they follow, a NULL, and then the environment.
    let (argument, environment) = unsafe { (stack.add(1).cast(), stack.add(1 + stack.read() + 1).cast()) };
    // SAFETY: that is where the arguments begin, and where the NULL is if there are none. They live as long as the process.
    let program = unsafe { text(argument) }.unwrap_or_default();
    // SAFETY: that is where the environment begins, and it lives and stays as it is as long as the process.
    let variables = unsafe { variables(environment) };
    // SAFETY: nothing in this process closes a descriptor it has not opened. Where the caller left one of these closed,
    // reading and writing fail with EBADF, or meet what was opened under the number (`dotfour_plugin`'s ADD sees to that).
    let (stdin, stdout) = unsafe { (BorrowedFd::borrow_raw(0), BorrowedFd::borrow_raw(1)) };
    system::exit(dotfour_plugin::run(program, variables, stdin, stdout, started_ns))
}

/// The environment's CNI variables, as pairs of name and value. A runtime passes its own environment on, and to measure all of
/// that would be a third of what the program does.
///
/// # Safety
/// `next` points to an array of C strings that ends with NULL, all of which live and stay as they are for ever.
unsafe fn variables(mut next: *const *const c_char) -> impl Iterator<Item = (&'static [u8], &'static [u8])> {
    let texts = iter::from_fn(move || {
        // SAFETY: the array has not ended before `next`, which only moves on from what is not NULL.
        let place = unsafe { next.read() };
        if place.is_null() {
            return None;
        }
        // SAFETY: there is at least the NULL behind what is not NULL.
        next = unsafe { next.add(1) };
        Some(place)
    });
    // SAFETY: not NULL, so a C string, by the caller's promise.
    texts.filter(|place| unsafe { begins_with(*place, b"CNI_") }).filter_map(|place| {
        // SAFETY: as above.
        let text = unsafe { CStr::from_ptr(place) }.to_bytes();
        let mut parts = text.splitn(2, |byte| *byte == b'=');
        Some((parts.next()?, parts.next()?))
    })
}

/// Whether a C string begins so.
///
/// # Safety
/// `text` points to a C string, and there is no zero in `start`.
unsafe fn begins_with(text: *const c_char, start: &[u8]) -> bool {
    // SAFETY: a byte is looked at only when those before it were not zero, for they were those of `start`.
    start.iter().enumerate().all(|(at, byte)| unsafe { text.cast::<u8>().add(at).read() } == *byte)
}

/// The text at a place of such an array, or nothing at its end.
///
/// # Safety
/// `place` points to NULL or to a C string that lives and stays as it is for ever.
unsafe fn text(place: *const *const c_char) -> Option<&'static [u8]> {
    // SAFETY: by the caller's promise.
    let text = unsafe { place.read() };
    // SAFETY: a C string, by the same promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// What stays to be done when the program itself is wrong: the runtime gets an error object all the same.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut line = Line { bytes: [0; 1024], used: 0 };
    let (file, number) = info.location().map_or(("?", 0), |location| (location.file(), location.line()));
    // A path that does not fit would be a defect within a defect; Line then keeps what fits.
    let _ = writeln!(
        line,
        r#"{{"cniVersion":"{}","code":999,"msg":"internal: the plugin panicked at {file}:{number}","details":"this is a defect in Dotfour: please report it"}}"#,
        CniVersion::NEWEST.name()
    );
    // SAFETY: as in main.
    let stdout = unsafe { BorrowedFd::borrow_raw(1) };
    let _ = rustix::io::write(stdout, line.bytes.get(..line.used).unwrap_or_default());
    system::exit(1)
}

/// Text in a fixed place: a panic may come from the heap.
struct Line {
    bytes: [u8; 1024],
    used: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.used + text.len();
        self.bytes.get_mut(self.used..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}

/// What the ready-made `alloc` library refers to because it was compiled for unwinding as well. Here a panic ends the
/// process, so neither is ever called.
mod unwinding {
    #[unsafe(no_mangle)]
    extern "C" fn _Unwind_Resume() -> ! {
        crate::system::exit(1)
    }

    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() -> ! {
        crate::system::exit(1)
    }
}
