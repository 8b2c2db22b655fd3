//! The start of `dotfour`, and nothing else: what libc would do for a program, as far as this one needs it. The work
//! is done by the library `dotfour_plugin`.
//!
//! `no_builtins` covers the whole crate for the sake of [`memory`]: the compiler must not recognise the loops of
//! `memcpy` as a `memcpy`.

#![no_std]
#![no_main]
#![no_builtins]

mod arena;
mod code;
mod entry;
mod memory;
mod system;

#[global_allocator]
static ARENA: arena::Arena = arena::Arena::new();
