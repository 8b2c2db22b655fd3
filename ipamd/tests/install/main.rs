//! `dotfour-ipamd install` and `uninstall`, and what the daemon writes for the container runtime: real processes, in
//! directories and namespaces of their own.

// Clippy allows these in test functions only, not in what test functions share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod conflist;
mod programs;
mod startup_taint;
// The daemon's own tests have the node in namespaces; they use more of it.
#[allow(dead_code)]
#[path = "../daemon/support.rs"]
mod support;
mod uninstall;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use support::write_program;

const DAEMON: &str = env!("CARGO_BIN_EXE_dotfour-ipamd");

/// The real plugin, which is built on its own.
fn plugin() -> PathBuf {
    released("dotfour")
}

/// A program as it is shipped, and as `make build` made it last: `make test` does that first.
fn released(name: &str) -> PathBuf {
    let target = Path::new(DAEMON).parent().and_then(Path::parent).unwrap();
    let program = target.join("release").join(name);
    assert!(program.exists(), "{} is missing; `make build` makes it", program.display());
    program
}

/// Sets a flag when it is dropped, also by a panic, for threads that go on until then.
struct SetAtEnd<'f>(&'f AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn install(bin_dir: &Path, plugin: &Path) -> Command {
    let mut command = Command::new(DAEMON);
    command.arg("install").arg("--cni-bin-dir").arg(bin_dir).arg("--plugin").arg(plugin);
    command
}

/// The names in a directory, in order.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
