//! The memory functions that the compiler and `core` expect of a libc, as C defines them.
//!
//! Plain loops: the compiler makes vector code of them, and what is copied here has a few hundred bytes. That none of
//! them becomes a call of itself is what `#![no_builtins]` of this crate is for. Under test they keep to themselves, and
//! `std` to its own.

/// # Safety
/// `to` can be written and `from` read for `n` bytes; the regions may overlap if `to` lies before `from`.
#[inline(always)]
unsafe fn copy_forward(to: *mut u8, from: *const u8, n: usize) {
    let mut i = 0;
    while i < n {
        // SAFETY: i < n, the caller's promise. A byte is overwritten only after it has been read.
        unsafe { to.add(i).write(from.add(i).read()) };
        i += 1;
    }
}

/// # Safety
/// As C has it: both regions have `n` bytes and do not overlap.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { copy_forward(to, from, n) };
    to
}

/// # Safety
/// As C has it: both regions have `n` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if to.addr() <= from.addr() {
        // SAFETY: the caller's promise, and `to` lies before `from`.
        unsafe { copy_forward(to, from, n) };
        return to;
    }
    let mut i = n;
    while i > 0 {
        i -= 1;
        // SAFETY: i < n, the caller's promise. Going down, a byte is overwritten only after it has been read.
        unsafe { to.add(i).write(from.add(i).read()) };
    }
    to
}

/// # Safety
/// As C has it: the region has `n` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn memset(to: *mut u8, value: i32, n: usize) -> *mut u8 {
    // C's rule: the value is taken as an unsigned char.
    let [byte, ..] = value.to_le_bytes();
    let mut i = 0;
    while i < n {
        // SAFETY: i < n, the caller's promise.
        unsafe { to.add(i).write(byte) };
        i += 1;
    }
    to
}

/// # Safety
/// As C has it: both regions have `n` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut i = 0;
    while i < n {
        // SAFETY: i < n, the caller's promise.
        let (left, right) = unsafe { (a.add(i).read(), b.add(i).read()) };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
        i += 1;
    }
    0
}

/// # Safety
/// As [`memcmp`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(a, b, n) }
}

/// # Safety
/// As C has it: there is a zero byte at `text` or behind it.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: no byte before this one was zero, so the text goes on.
    while unsafe { text.add(n).read() } != 0 {
        n += 1;
    }
    n
}
