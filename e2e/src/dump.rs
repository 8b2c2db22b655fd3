//! Everything that plugins change in a node's network, as text to compare.

use std::fmt;
use std::io;
use std::process::Command;

use dotfour_datapath::Netns;

/// The programs whose output is compared, each with its arguments. What packets and time change is left out of it, or
/// removed afterwards.
const LISTINGS: [&[&str]; 9] = [
    &["nft", "--stateless", "list", "ruleset"],
    &["iptables-legacy-save"],
    &["iptables-save"],
    &["tc", "qdisc", "show"],
    &["ip", "-details", "link", "show"],
    &["ip", "address", "show"],
    &["ip", "route", "show", "table", "all"],
    &["ip", "rule", "show"],
    &["ip", "neighbour", "show", "nud", "permanent"],
];

/// The lines of all listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump(Vec<String>);

impl Dump {
    /// Reads a namespace.
    ///
    /// # Errors
    /// If a program is not there or fails.
    pub fn of(netns: &Netns) -> io::Result<Self> {
        netns
            .run(|| {
                let mut lines = Vec::new();
                for listing in LISTINGS {
                    let output = output(listing)?;
                    let lasting = output.lines().filter(|line| lasting(line)).map(uncounted);
                    lines.extend(lasting.map(|line| format!("{}: {line}", listing.join(" "))));
                }
                Ok(Dump(lines))
            })
            .flatten()
    }

    /// What another dump has more (`+`) and less (`-`), a line each.
    pub fn difference(&self, later: &Dump) -> Vec<String> {
        let only = |of: &Dump, than: &Dump, sign: char| -> Vec<String> {
            let mut rest = than.0.clone();
            let mut missing = Vec::new();
            for line in &of.0 {
                match rest.iter().position(|other| other == line) {
                    Some(place) => drop(rest.swap_remove(place)),
                    None => missing.push(format!("{sign} {line}")),
                }
            }
            missing
        };
        let mut difference = only(self, later, '-');
        difference.extend(only(later, self, '+'));
        difference
    }

    /// The lines that say something of `what`.
    pub fn lines_with<'d>(&'d self, what: &'d str) -> impl Iterator<Item = &'d str> {
        self.0.iter().map(String::as_str).filter(move |line| line.contains(what))
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Whether a line is a matter of pods. Comments carry the moment; counters count; and a NIC's own link-local address
/// comes a second or two after the NIC (RFC 4862, section 5.4).
fn lasting(line: &str) -> bool {
    let own = ["fe80:", "multicast ff00:", "valid_lft"];
    !line.starts_with('#') && !own.iter().any(|word| line.contains(word))
}

/// A line without the counters that iptables puts behind a chain's policy.
fn uncounted(line: &str) -> &str {
    line.split_once(" [").filter(|_| line.starts_with(':')).map_or(line, |(chain, _)| chain)
}

fn output(listing: &[&str]) -> io::Result<String> {
    let (program, arguments) = listing.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let named = |what: String| io::Error::other(format!("{}: {what}", listing.join(" ")));
    let output = Command::new(program).args(arguments).output().map_err(|e| named(e.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(named(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
