//! Programs inside a namespace.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use dotfour_datapath::Netns;

use crate::program::Failure;

/// The programs that only root calls are not on everybody's path.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// Has a shell carry out a command, which ends at its first failure; what it prints.
///
/// # Errors
/// With what it said, if it fails.
pub fn shell(netns: &Netns, command: &str) -> Result<String, Failure> {
    feed(netns, &["sh", "-ec", command], "")
}

/// Has `nft` carry out a script.
///
/// # Errors
/// With what it said, if it refuses.
pub fn nft(netns: &Netns, script: &str) -> Result<(), Failure> {
    feed(netns, &["nft", "-f", "-"], script).map(drop)
}

/// Runs a program with something on its standard input; what it prints.
///
/// # Errors
/// With what it said, if it fails.
pub fn feed(netns: &Netns, command: &[&str], input: &str) -> Result<String, Failure> {
    let output = run(netns, command, input)?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// As [`feed`], for a program that may fail.
///
/// # Errors
/// If it cannot be started.
pub fn run(netns: &Netns, command: &[&str], input: &str) -> Result<Output, Failure> {
    let (program, arguments) = command.split_first().ok_or("no program")?;
    let ran = netns.run(|| {
        let mut child = Command::new(program)
            .args(arguments)
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    })?;
    Ok(ran.map_err(|e| format!("cannot run {program}: {e}"))?)
}
