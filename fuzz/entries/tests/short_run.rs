//! A short run of every fuzz target, on any toolchain: its seeds as they are, then thousands of changes of them.
//!
//! `DOTFOUR_FUZZ_SECONDS` lets every target run for so long instead, with a seed by chance; `DOTFOUR_FUZZ_SEED` repeats a
//! run. An input that breaks a promise is left in a file, which is a seed as soon as it is copied to the target's directory.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dotfour_fuzz_entries::{Entry, TARGETS};
use fastrand::Rng;

/// How many changed inputs each target gets, unless a time is set.
const EXECUTIONS: u64 = 20_000;
/// What those are made from.
const SEED: u64 = 4;
/// The longest input made, in bytes.
const LONGEST: usize = 8 * 1024;
/// How many inputs are kept to be changed further.
const KEPT: usize = 256;

mod no_input_breaks_a_promise_of {
    use super::run;

    macro_rules! targets {
        ($($target:ident)*) => { $(#[test] fn $target() { run(stringify!($target)); })* };
    }

    targets! {
        plugin_stdin plugin_environment request_frame reply_frame journal records wireserver alias configuration
    }
}

#[test]
fn every_target_has_seeds_of_both_kinds_and_a_program_for_cargo_fuzz() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for (name, entry) in TARGETS {
        let taken: BTreeSet<bool> = seeds(name).iter().map(|seed| entry(seed)).collect();
        assert_eq!(taken.len(), 2, "{name} needs seeds that are taken and seeds that are not");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml does not name {name}");
        let program = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("dotfour_fuzz_entries::{name}(data)")), "{program}");
    }
    for (what, count) in
        [("corpus", files(&fuzz().join("corpus"))), ("fuzz_targets", files(&fuzz().join("fuzz_targets")))]
    {
        assert_eq!(count.len(), TARGETS.len(), "{what} has what no target is called");
    }
}

/// Runs a target, and says how often.
fn run(name: &str) {
    let entry = TARGETS.iter().find(|(target, _)| *target == name).unwrap().1;
    let time = number("DOTFOUR_FUZZ_SECONDS").map(Duration::from_secs);
    // Short runs are all the same, so that a change fails by what it has changed; a long one looks elsewhere each time.
    let seed = number("DOTFOUR_FUZZ_SEED").unwrap_or_else(|| if time.is_some() { fastrand::u64(..) } else { SEED });
    let mut rng = Rng::with_seed(seed);
    let mut inputs = seeds(name);
    let (mut executions, mut taken, begin) = (0, 0, Instant::now());
    for input in &inputs {
        taken += u64::from(execute(name, entry, input, seed));
        executions += 1;
    }
    let first = executions;
    while time.map_or(executions - first < EXECUTIONS, |time| begin.elapsed() < time) {
        let input = changed(&mut rng, &inputs);
        executions += 1;
        if !execute(name, entry, &input, seed) {
            continue;
        }
        taken += 1;
        // A change that is taken leads further than one that is not.
        if inputs.len() < KEPT {
            inputs.push(input);
        } else if rng.u8(..) < 8 {
            let at = rng.usize(..inputs.len());
            inputs[at] = input;
        }
    }
    // Not by a macro, whose output is shown only of tests that fail.
    let (mut output, seconds) = (std::io::stderr(), begin.elapsed().as_secs_f64());
    writeln!(output, "{name}: {executions} inputs, {taken} taken, {seconds:.1} s, seed {seed}").unwrap();
}

/// Runs an entry; an input that breaks a promise ends in a file.
fn execute(name: &str, entry: Entry, input: &[u8], seed: u64) -> bool {
    std::panic::catch_unwind(|| entry(input)).unwrap_or_else(|_| {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}"));
        fs::write(&file, input).unwrap();
        panic!("{name} broke a promise with seed {seed} on the input in {}: {}", file.display(), input.escape_ascii());
    })
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    files(&fuzz().join("corpus").join(name)).iter().map(|path| fs::read(path).unwrap()).collect()
}

/// In one order everywhere, so that a seed repeats a run.
fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?} and no whole number")))
}

/// One of the inputs with up to four changes.
fn changed(rng: &mut Rng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut input = rng.choice(inputs).cloned().unwrap_or_default();
    for _ in 0..rng.usize(1..=4) {
        let other = rng.choice(inputs).map(Vec::as_slice).unwrap_or_default();
        change(rng, &mut input, other);
    }
    input.truncate(LONGEST);
    input
}

/// What readers stumble over.
const WORDS: [&[u8]; 24] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"=",
    b"<",
    b">",
    b"&",
    b"/",
    b" ",
    b"\n",
    b"\0",
    b"\xff",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"-1",
    b"0",
    b"4294967296",
    b"18446744073709551615",
    b"true",
];

fn change(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8]) {
    let at = rng.usize(..=input.len());
    // Short spans more often than long ones.
    let end = (at + (1 << rng.u32(..8))).min(input.len());
    match rng.u8(..9) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << rng.u8(..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = rng.u8(..);
            }
        }
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => {
            let span = input[at..end].to_vec();
            input.splice(at..at, span);
        }
        5 => {
            input.truncate(at);
            input.extend(&other[rng.usize(..=other.len())..]);
        }
        6 => {
            let from = rng.usize(..=other.len());
            let to = (from + (end - at).max(1)).min(other.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
        7 => {
            let word = WORDS[rng.usize(..WORDS.len())];
            input.splice(at..end.min(at + rng.usize(..2)), word.iter().copied());
        }
        _ => {
            let digits: Vec<usize> = (0..input.len()).filter(|&at| input[at].is_ascii_digit()).collect();
            if let Some(&digit) = rng.choice(&digits) {
                input[digit] = rng.u8(b'0'..=b'9');
            }
        }
    }
}
