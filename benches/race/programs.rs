//! The processes that do nothing, compiled on the spot: whoever builds Rust has a C compiler, which links for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::RaceError;

/// A program that does nothing.
#[derive(Debug)]
pub(crate) struct NoOp {
    /// Its file's name, and the `type` it has as a plugin.
    pub(crate) name: &'static str,
    source: &'static str,
    flags: &'static [&'static str],
}

/// No libc, and one segment: nothing to load, one page to touch.
pub(crate) const SMALLEST: NoOp = NoOp {
    name: "no-op-smallest",
    source: include_str!("no-op/smallest.c"),
    flags: &["-nostdlib", "-nostartfiles", "-Wl,-z,noseparate-code", "-Wl,--build-id=none"],
};

/// The C library's start and end, and nothing between.
pub(crate) const GLIBC: NoOp = NoOp { name: "no-op-glibc", source: include_str!("no-op/glibc.c"), flags: &[] };

impl NoOp {
    /// Compiles it into a directory; returns its path.
    pub(crate) fn compile(&self, directory: &Path) -> Result<PathBuf, RaceError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| RaceError::File { path, source }
        };
        let source = directory.join(self.name).with_extension("c");
        let program = directory.join(self.name);
        std::fs::write(&source, self.source).map_err(file(&source))?;
        let refused = |reason| RaceError::Compile { name: self.name, reason };
        let compiled = Command::new("cc")
            .args(["-O2", "-s", "-static", "-fno-stack-protector"])
            .args(self.flags)
            .arg("-o")
            .args([&program, &source])
            .output()
            .map_err(|e| refused(e.to_string()))?;
        if !compiled.status.success() {
            return Err(refused(String::from_utf8_lossy(&compiled.stderr).trim().to_owned()));
        }
        Ok(program)
    }
}
