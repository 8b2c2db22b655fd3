//! The memory functions and the arena against what `std` does. The files are the program's own, compiled here for a
//! second time: with `std` around them they are ordinary functions, which replace nobody's `memcpy`.

#![allow(clippy::indexing_slicing)]

#[path = "../src/arena.rs"]
mod arena;
#[path = "../src/memory.rs"]
mod memory;

use std::alloc::{GlobalAlloc, Layout};

/// Long enough for every way the compiler unrolls a loop, and for what remains of it.
const LENGTHS: [usize; 12] = [0, 1, 2, 7, 8, 15, 16, 31, 33, 64, 127, 300];

fn pattern() -> Vec<u8> {
    (0..=250).cycle().take(700).collect()
}

#[test]
fn memmove_moves_regions_that_overlap_either_way() {
    for length in LENGTHS {
        for (to, from) in [(0, 0), (0, 1), (1, 0), (0, 9), (9, 0), (5, 300), (300, 5), (16, 0), (0, 16)] {
            let mut expected = pattern();
            expected.copy_within(from..from + length, to);
            let mut moved = pattern();
            let start = moved.as_mut_ptr();
            // SAFETY: both regions end below 700 bytes.
            let returned = unsafe { memory::memmove(start.add(to), start.add(from), length) };
            assert_eq!(moved, expected, "{length} bytes from {from} to {to}");
            assert_eq!(returned.addr() - start.addr(), to);
        }
    }
}

#[test]
fn memcpy_and_memset_write_what_they_are_told_and_no_byte_more() {
    for length in LENGTHS {
        let mut expected = vec![0xee; 700];
        expected[3..3 + length].copy_from_slice(&pattern()[..length]);
        let mut copied = vec![0xee; 700];
        // SAFETY: both regions end below 700 bytes, and they are in different vectors.
        unsafe { memory::memcpy(copied.as_mut_ptr().add(3), pattern().as_ptr(), length) };
        assert_eq!(copied, expected, "{length} bytes");

        expected[3..3 + length].fill(0x5a);
        // SAFETY: the region ends below 700 bytes.
        unsafe { memory::memset(copied.as_mut_ptr().add(3), 0x7700 + 0x5a, length) };
        assert_eq!(copied, expected, "{length} bytes");
    }
}

#[test]
fn memcmp_orders_by_the_first_difference_as_unsigned_bytes() {
    for length in LENGTHS {
        let same = pattern();
        // SAFETY: both have 700 bytes.
        assert_eq!(unsafe { memory::memcmp(same.as_ptr(), pattern().as_ptr(), length) }, 0);
        for at in [0, length / 2, length.saturating_sub(1)] {
            let (mut low, mut high) = (pattern(), pattern());
            (low[at], high[at]) = (0x7f, 0x80);
            // What is behind the difference, and behind the end, does not count.
            (low[at + 1], high[at + 1]) = (0xff, 0);
            // SAFETY: all have 700 bytes.
            let (up, down, equal) = unsafe {
                (
                    memory::memcmp(low.as_ptr(), high.as_ptr(), length),
                    memory::memcmp(high.as_ptr(), low.as_ptr(), length),
                    memory::bcmp(low.as_ptr(), high.as_ptr(), length),
                )
            };
            let differ = at < length;
            assert_eq!((up < 0, down > 0, equal != 0), (differ, differ, differ), "{length} bytes, at {at}");
        }
    }
}

#[test]
fn strlen_counts_up_to_the_first_zero() {
    for length in LENGTHS {
        let mut text = vec![b'x'; length];
        text.extend([0, b'y', 0]);
        // SAFETY: there are zeros in it.
        assert_eq!(unsafe { memory::strlen(text.as_ptr()) }, length);
    }
}

/// Gives each block its own byte and sees that it is there at the end.
#[test]
fn blocks_of_the_arena_are_aligned_keep_what_they_hold_and_grow() {
    static ARENA: arena::Arena = arena::Arena::new();
    // As the program does before it asks for anything.
    ARENA.touch();
    let mut blocks = Vec::new();
    for round in 0..200_u8 {
        let layout =
            Layout::from_size_align(1 + usize::from(round) * 7 % 90, 1 << (round % 7)).unwrap_or(Layout::new::<u8>());
        // SAFETY: the layout is not empty, and the block is written for its size.
        let block = unsafe { ARENA.alloc(layout) };
        assert!(!block.is_null() && block.addr() % layout.align() == 0);
        // SAFETY: as above.
        unsafe { block.write_bytes(round, layout.size()) };
        blocks.push((block, layout, round));
        if round % 3 == 0 {
            // One that is the last, and one that has others behind it.
            for at in [blocks.len() - 1, blocks.len() / 2] {
                let (block, layout, value) = blocks[at];
                let size = layout.size() * 2;
                // SAFETY: the block is alive and of this layout; the new one is written for its new size.
                let grown = unsafe { ARENA.realloc(block, layout, size) };
                assert!(!grown.is_null() && grown.addr() % layout.align() == 0);
                // SAFETY: the first half came along, the second is new.
                unsafe {
                    assert_eq!(std::slice::from_raw_parts(grown, layout.size()), vec![value; layout.size()]);
                    grown.add(layout.size()).write_bytes(value, layout.size());
                }
                let layout = Layout::from_size_align(size, layout.align()).unwrap_or(layout);
                blocks[at] = (grown, layout, value);
            }
        }
    }
    for (block, layout, value) in blocks {
        // SAFETY: the block is alive and has been written.
        let held = unsafe { std::slice::from_raw_parts(block, layout.size()) };
        assert_eq!(held, vec![value; layout.size()]);
    }
}

#[test]
fn the_arena_takes_back_its_last_block_and_says_when_it_is_full() {
    const MIB: usize = 1024 * 1024;
    static ARENA: arena::Arena = arena::Arena::new();
    let layout = |size| Layout::from_size_align(size, 1).unwrap_or(Layout::new::<u8>());
    // SAFETY: the layouts are not empty, blocks are given back once and with their layout.
    unsafe {
        let first = ARENA.alloc(layout(MIB));
        // Shrinking the last block makes room, and so does giving it back.
        assert_eq!(ARENA.realloc(first, layout(MIB), 16), first);
        let second = ARENA.alloc(layout(15 * MIB));
        assert_eq!(second.addr(), first.addr() + 16);
        assert!(ARENA.alloc(layout(MIB)).is_null());
        assert!(ARENA.realloc(first, layout(16), 2 * MIB).is_null());
        assert!(ARENA.realloc(second, layout(15 * MIB), 16 * MIB).is_null());
        ARENA.dealloc(second, layout(15 * MIB));
        // Not the last one any more: nothing happens to what is behind it.
        let third = ARENA.alloc(layout(8));
        ARENA.dealloc(first, layout(16));
        assert_eq!((third.addr(), ARENA.alloc(layout(8)).addr()), (first.addr() + 16, third.addr() + 8));
        assert!(ARENA.alloc(layout(usize::MAX / 4)).is_null());
    }
}
