//! Handing the table to `nft`, and asking it what is there.
//!
//! The `nftables` crate's own helper is not used for running `nft`: it leaves the program's error text to the daemon's log
//! and out of its error, and does not say which process it was, which [`super::events`] must know.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::outline::Outline;
use super::table::{Content, TABLE};
use crate::program::{self, Limits};

/// Where `nft` may be although PATH does not say so: an ordinary user's PATH lacks these, and so do some units'.
const SYSTEM_DIRECTORIES: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// What a firewall's program is granted. Ten thousand networks take `nft` a quarter of a second, and it waits for others who
/// change tables.
pub(super) const LIMITS: Limits = Limits { patience: Duration::from_secs(30), longest: 64 * 1024 * 1024 };

/// Why the rules could not be read or written. What was there is there still, unless the program was killed: then all may be done,
/// or nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The program is missing.
    #[error("the program nft is not found in {searched}; install the package nftables")]
    Missing {
        /// The directories.
        searched: String,
    },
    /// The program cannot be run.
    #[error("{program} cannot be run")]
    Run {
        /// Its path.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program did not end.
    #[error(
        "{program} has not ended within {} s and was killed; look what else changes the kernel's tables, and for how long",
        .after.as_secs()
    )]
    Hangs {
        /// Its path.
        program: String,
        /// How long it had.
        after: Duration,
    },
    /// The program said more than anybody can want to read.
    #[error("{program} had more than {most} bytes to say and was killed")]
    TooMuch {
        /// Its path.
        program: String,
        /// How much it may say.
        most: usize,
    },
    /// The program refuses.
    #[error("nft cannot {what}: {said}")]
    Refused {
        /// What it was to do.
        what: String,
        /// Its own words.
        said: String,
    },
}

/// The program.
#[derive(Debug, Clone)]
pub struct Nft {
    program: PathBuf,
    limits: Limits,
}

impl Nft {
    /// Looks for the program in PATH and where distributions put it.
    pub fn find() -> Result<Self, ApplyError> {
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        path.push(":");
        path.push(SYSTEM_DIRECTORIES);
        Nft::find_in(path)
    }

    fn find_in(path: OsString) -> Result<Self, ApplyError> {
        let found = std::env::split_paths(&path).map(|directory| directory.join("nft")).find(|file| file.is_file());
        let searched = || path.to_string_lossy().into_owned();
        found.map(|program| Nft { program, limits: LIMITS }).ok_or_else(|| ApplyError::Missing { searched: searched() })
    }

    /// The table as it is, without the sets' elements; `None` if there is none. Other tables are not looked at: there may be
    /// tens of thousands of rules in them.
    pub fn outline(&self) -> Result<Option<Outline>, ApplyError> {
        let listing = self.ask(&["-j", "-t", "list", "table", "inet", TABLE])?;
        Ok(listing.map(|listing| Outline::read(&listing)))
    }

    /// Makes the table what `content` says, in one transaction: all of it, or nothing. Returns the id of the process that
    /// did it.
    pub fn apply(&self, content: &Content, present: Option<&Outline>) -> Result<u32, ApplyError> {
        let failed = |source| ApplyError::Run { program: self.program.display().to_string(), source };
        let text = serde_json::to_vec(&content.transaction(present)).map_err(|e| failed(e.into()))?;
        let (pid, output) = self.run(&["-j", "-f", "-"], &text)?;
        if output.status.success() {
            return Ok(pid);
        }
        let said = one_line(&String::from_utf8_lossy(&output.stderr));
        Err(ApplyError::Refused { what: "apply the rules".into(), said })
    }

    /// What `nft -j -t list` prints about something of anybody's; `None` if it is not there. It should be small: there may be
    /// tens of thousands of rules.
    pub fn list(&self, what: &[&str]) -> Result<Option<String>, ApplyError> {
        self.ask(&[&["-j", "-t", "list"], what].concat())
    }

    /// Removes the table. False if there is none.
    pub fn remove(&self) -> Result<bool, ApplyError> {
        Ok(self.ask(&["delete", "table", "inet", TABLE])?.is_some())
    }

    fn ask(&self, arguments: &[&str]) -> Result<Option<String>, ApplyError> {
        let (_, output) = self.run(arguments, b"")?;
        answer(arguments, &output)
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Result<(u32, Output), ApplyError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("LC_ALL", "C").stdout(Stdio::piped()).stderr(Stdio::piped());
        program::run(&mut command, input, self.limits).map_err(|source| {
            let program = self.program.display().to_string();
            match source.kind() {
                io::ErrorKind::TimedOut => ApplyError::Hangs { program, after: self.limits.patience },
                io::ErrorKind::FileTooLarge => ApplyError::TooMuch { program, most: self.limits.longest },
                _ => ApplyError::Run { program, source },
            }
        })
    }
}

/// What nft printed; `None` if what it was asked about is not there.
fn answer(arguments: &[&str], output: &Output) -> Result<Option<String>, ApplyError> {
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
    } else if said.contains("No such file or directory") {
        Ok(None)
    } else {
        let words: Vec<&str> = arguments.iter().copied().filter(|word| !word.starts_with('-')).collect();
        Err(ApplyError::Refused { what: words.join(" "), said: one_line(&said) })
    }
}

/// nft repeats its whole input behind an error, which here is JSON in one line.
fn one_line(said: &str) -> String {
    const MOST: usize = 300;
    let errors: Vec<&str> = said.lines().map(str::trim).filter(|line| line.contains("rror")).collect();
    let text = if errors.is_empty() { said.trim().to_owned() } else { errors.join("; ") };
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_machine_without_nft_is_told_what_to_install() {
        let nowhere = tempfile::tempdir().unwrap();
        let e = Nft::find_in(nowhere.path().into()).unwrap_err().to_string();
        assert!(e.contains("package nftables") && e.contains(nowhere.path().to_str().unwrap()), "{e}");
    }

    #[test]
    fn one_that_hangs_or_says_too_much_is_an_error_that_says_so() {
        let place = tempfile::tempdir().unwrap();
        let said = |script: &str, patience| {
            let program = place.path().join("nft");
            // By another process: a child of another test's might hold a descriptor that was open here to write, and the program
            // would be busy.
            let write = format!("printf '#!/bin/sh\\nexec {script}\\n' >\"$1\" && chmod 755 \"$1\"");
            assert!(Command::new("sh").args(["-c", &write, "sh"]).arg(&program).status().unwrap().success());
            let limits = Limits { patience: Duration::from_secs(patience), longest: 1000 };
            Nft { program, limits }.outline().unwrap_err().to_string()
        };
        assert!(said("sleep 6000", 1).contains("has not ended within 1 s and was killed"));
        assert!(said("yes", 60).contains("had more than 1000 bytes to say"));
    }

    #[test]
    fn a_refusal_is_nothing_there_only_if_it_says_so() {
        let ended = |status, said: &str| Output {
            status: std::process::ExitStatus::from_raw(status),
            stdout: b"listing".to_vec(),
            stderr: said.into(),
        };
        let answer = |output| answer(&["-j", "list", "chain", "ip", "nat", "X"], &output);
        assert_eq!(answer(ended(0, "")).unwrap().as_deref(), Some("listing"));
        assert_eq!(answer(ended(256, "Error: No such file or directory")).unwrap(), None);
        let unseen = answer(ended(256, "netlink: Error: cache initialization failed: Operation not permitted"));
        let unseen = unseen.unwrap_err().to_string();
        assert!(unseen.contains("list chain ip nat X") && unseen.contains("not permitted"), "{unseen}");
    }

    #[test]
    fn what_nft_says_is_kept_short() {
        assert_eq!(
            one_line("internal:0:0-0: Error: Could not process rule: Operation not permitted\n\n{\"nft\n"),
            "internal:0:0-0: Error: Could not process rule: Operation not permitted"
        );
        assert!(one_line(&"x".repeat(1000)).chars().count() <= 301);
    }
}
