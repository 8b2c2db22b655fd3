//! The heap: a fixed arena in the program's zeroed memory, handed out from one end. Only the last block is ever taken
//! back.
//!
//! The program lives for less than a millisecond and its input is bounded, so nothing else is needed, and nothing else
//! costs as little: pages that are not touched do not exist, and no system call is made. It begins below the second
//! multiple of 2 MiB, so that even where huge pages are always given a usual call touches none, and waits for none to
//! be zeroed.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr;

/// 1 MiB of input at most, held in a buffer that may have grown to twice that, copied at most twice by what is
/// escaped in it, and once more into the result, whose buffer doubles too: 6 MiB and some messages of 64 KiB. Without
/// room the allocation fails, which ends in the panic handler.
const SIZE: usize = 16 * 1024 * 1024;

/// See the module.
#[repr(C, align(64))]
pub(crate) struct Arena {
    /// Bytes handed out, beside the memory they are in: the first allocation finds the page there already.
    used: Cell<usize>,
    memory: UnsafeCell<MaybeUninit<[u8; SIZE]>>,
}

// SAFETY: the program has one thread and handles no signals, so nothing is ever accessed at the same time.
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) const fn new() -> Self {
        Arena { used: Cell::new(0), memory: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Touches the first page by writing what is there. A read would come first otherwise: the kernel would map its page of
    /// zeros for that, and at the write behind it take a second fault to put another in its place.
    pub(crate) fn touch(&self) {
        self.used.set(0);
    }

    fn base(&self) -> *mut u8 {
        self.memory.get().cast()
    }

    /// Whether the block is the last one handed out, and so can grow and shrink in place.
    fn is_last(&self, block: *mut u8, size: usize) -> bool {
        block.addr() + size == self.base().addr() + self.used.get()
    }
}

// SAFETY: blocks begin at a multiple of their alignment, lie within `memory`, and do not overlap, because `used` only
// moves back over the last block when that is given back.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = (self.base().addr() + self.used.get()).next_multiple_of(layout.align()) - self.base().addr();
        match start.checked_add(layout.size()) {
            Some(end) if end <= SIZE => {
                self.used.set(end);
                // SAFETY: `start` is at most `end`, which lies within `memory` or right behind it.
                unsafe { self.base().add(start) }
            }
            _ => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.is_last(block, layout.size()) {
            self.used.set(self.used.get() - layout.size());
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if self.is_last(block, layout.size()) {
            let start = self.used.get() - layout.size();
            return match start.checked_add(new_size) {
                Some(end) if end <= SIZE => {
                    self.used.set(end);
                    block
                }
                _ => ptr::null_mut(),
            };
        }
        if new_size <= layout.size() {
            return block;
        }
        // SAFETY: the caller's promise to `realloc`: with this alignment the new size makes a layout.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller's promise to `realloc`: the new size is not zero.
        let new_block = unsafe { self.alloc(new_layout) };
        if !new_block.is_null() {
            // SAFETY: both blocks have `layout.size()` bytes, the new one being larger, and blocks do not overlap.
            unsafe { ptr::copy_nonoverlapping(block, new_block, layout.size()) };
        }
        new_block
    }
}
