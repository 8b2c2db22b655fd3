//! The command line.

use std::path::{Path, PathBuf};

use lexopt::{Arg, Parser, ValueExt as _};

const HELP: &str = "\
Times whole CNI plugins as a container runtime calls them, in turn: dotfour, Debian's reference plugins, processes that do
nothing, and the floor, which is the smallest process there is and the bare kernel work of a pod. Everything happens in
namespaces that are gone at the end. Needs root or user namespaces, nftables, and a C compiler.

Usage: race [OPTIONS]

Options:
  --quick            fewer rounds, smaller bursts: two minutes in place of nine
  --out DIR          write race.md and race.svg there
  --rounds N         only so many rounds in turn: no bursts, no forwarding, no pods already there
  --bin-dir DIR      where dotfour and dotfour-ipamd are [the directory of this program]
  --cni-dir DIR      where the reference plugins are [/usr/lib/cni]
  --build NAME=DIR   one more contestant: another build of dotfour and dotfour-ipamd, to see what a change did; may be
                     repeated
  --plugin NAME=CONFLIST[:CNI_PATH]
                     one more contestant: a configuration list, and where its plugins are [/opt/cni/bin]; may be repeated.
                     A daemon it needs must be running. It is called in a network namespace with a NIC, eth0
";

/// What is to be raced.
#[derive(Debug)]
pub(crate) struct Options {
    /// Fewer rounds.
    pub(crate) quick: bool,
    /// Only rounds in turn, and so many.
    pub(crate) rounds: Option<usize>,
    /// Where the report goes, if one is wanted.
    pub(crate) out: Option<PathBuf>,
    /// Where `dotfour` and `dotfour-ipamd` are.
    pub(crate) bin_dir: PathBuf,
    /// Where the reference plugins are.
    pub(crate) cni_dir: PathBuf,
    /// Other builds of Dotfour: what each is called, and where it is.
    pub(crate) builds: Vec<(String, PathBuf)>,
    /// Contestants beside those of the table.
    pub(crate) others: Vec<Other>,
}

/// A contestant that the command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Other {
    /// What it is called.
    pub(crate) name: String,
    /// Its configuration list.
    pub(crate) conflist: PathBuf,
    /// Where its programs are looked for.
    pub(crate) cni_path: Vec<PathBuf>,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// To be told how it is used.
    Help(&'static str),
    /// To race.
    Race(Options),
}

pub(crate) fn parse(mut parser: Parser) -> Result<Parsed, lexopt::Error> {
    let here = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)).unwrap_or_default();
    let mut options = Options {
        quick: false,
        rounds: None,
        out: None,
        bin_dir: here,
        cni_dir: "/usr/lib/cni".into(),
        builds: Vec::new(),
        others: Vec::new(),
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Parsed::Help(HELP)),
            Arg::Long("quick") => options.quick = true,
            Arg::Long("rounds") => options.rounds = Some(parser.value()?.parse()?),
            Arg::Long("out") => options.out = Some(parser.value()?.into()),
            Arg::Long("bin-dir") => options.bin_dir = parser.value()?.into(),
            Arg::Long("cni-dir") => options.cni_dir = parser.value()?.into(),
            Arg::Long("build") => options.builds.push(build(&parser.value()?.string()?)?),
            Arg::Long("plugin") => options.others.push(other(&parser.value()?.string()?)?),
            wrong => return Err(wrong.unexpected()),
        }
    }
    Ok(Parsed::Race(options))
}

fn build(text: &str) -> Result<(String, PathBuf), lexopt::Error> {
    match text.split_once('=') {
        Some((name, directory)) if !name.is_empty() && !directory.is_empty() => Ok((name.to_owned(), directory.into())),
        _ => Err("--build wants NAME=DIR".into()),
    }
}

fn other(text: &str) -> Result<Other, lexopt::Error> {
    let (name, rest) = text.split_once('=').ok_or("--plugin wants NAME=CONFLIST[:CNI_PATH]")?;
    let mut paths = rest.split(':').map(PathBuf::from);
    let conflist = paths.next().unwrap_or_default();
    let mut cni_path: Vec<PathBuf> = paths.collect();
    if name.is_empty() || conflist.as_os_str().is_empty() {
        return Err("--plugin wants NAME=CONFLIST[:CNI_PATH]".into());
    }
    if cni_path.is_empty() {
        cni_path.push("/opt/cni/bin".into());
    }
    Ok(Other { name: name.to_owned(), conflist, cni_path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contestant_is_a_name_a_list_and_a_path_of_directories() {
        let short = other("azure=/etc/cni/a.conflist").unwrap();
        assert_eq!(short.cni_path, [Path::new("/opt/cni/bin")]);
        let long = other("azure=a.conflist:/opt/a:/opt/b").unwrap();
        assert_eq!((long.name.as_str(), long.conflist.as_path()), ("azure", Path::new("a.conflist")));
        assert_eq!(long.cni_path, [Path::new("/opt/a"), Path::new("/opt/b")]);
    }

    #[test]
    fn half_a_contestant_is_refused() {
        for wrong in ["azure", "=a.conflist", "azure=", "azure=:/opt/a"] {
            assert!(other(wrong).is_err(), "{wrong}");
        }
        for wrong in ["before", "=target/release", "before="] {
            assert!(build(wrong).is_err(), "{wrong}");
        }
        assert!(parse(Parser::from_args(["race", "--rounds", "many"])).is_err());
        assert!(parse(Parser::from_args(["race", "--laps", "3"])).is_err());
    }
}
