//! Rules of others, in a node's namespace.

use std::io::Write;
use std::process::{Command, Stdio};

use dotfour_datapath::Netns;
use dotfour_e2e::program::Failure;

/// Has `nft` carry out a script.
pub(crate) fn nft(netns: &Netns, script: &str) -> Result<(), Failure> {
    feed(netns, &["nft", "-f", "-"], script)
}

/// Runs a program that reads its orders.
pub(crate) fn feed(netns: &Netns, command: &[&str], orders: &str) -> Result<(), Failure> {
    let (program, arguments) = command.split_first().ok_or("no program")?;
    let output = netns.run(|| -> std::io::Result<_> {
        let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read says why.
            let _ = stdin.write_all(orders.as_bytes());
        }
        child.wait_with_output()
    })??;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}\n{orders}", String::from_utf8_lossy(&output.stderr)).into())
    }
}
