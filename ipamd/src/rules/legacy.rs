//! Legacy iptables. Its programs are asked only about tables that are there: otherwise they would load the modules of tables
//! that nobody uses.

use std::process::{Command, Stdio};

use super::apply::LIMITS;
use crate::program;

/// Whose tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Whether legacy iptables has a table in the calling thread's network namespace.
pub(super) fn has_table(family: Family, table: &str) -> bool {
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    std::fs::read_to_string(path).unwrap_or_default().lines().any(|name| name == table)
}

/// What a program of legacy iptables lists of a chain, as far as `stdout` takes it; `None` if there is no such chain.
///
/// # Errors
/// In words.
pub(super) fn list(program: &str, table: &str, chain: &str, stdout: Stdio) -> Result<Option<String>, String> {
    let mut command = Command::new(program);
    command.args(["-w", "5", "-t", table, "-S", chain]).stdout(stdout).stderr(Stdio::piped());
    let (_, output) =
        program::run(&mut command, b"", LIMITS).map_err(|e| format!("{program} cannot be run to its end: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
    } else if said.contains("No chain/target/match by that name") {
        Ok(None)
    } else {
        Err(format!("{program}: {}", said.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_say_is_not_taken_for_no_chain() {
        let list = |program| list(program, "nat", "NO-SUCH-CHAIN", Stdio::null());
        assert!(list("no-such-iptables").is_err_and(|why| why.contains("no-such-iptables cannot be run")));
        assert!(list("false").is_err_and(|why| why.starts_with("false")));
        assert_eq!(list("true"), Ok(Some(String::new())));
        // As iptables ends where there is none, in the namespace that the tests run in.
        assert_eq!(list("iptables-legacy"), Ok(None));
    }
}
