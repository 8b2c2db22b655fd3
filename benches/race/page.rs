//! The report: a page for people, and its picture.

use std::fs;
use std::path::Path;

use crate::budgets;
use crate::error::RaceError;
use crate::machine::Machine;
use crate::results::Results;
use crate::svg;

const PAGE: &str = "race.md";
const PICTURE: &str = "race.svg";

/// Writes the report into a directory, in the place of an earlier one. Returns the paths.
pub(crate) fn write(directory: &Path, machine: &Machine, results: &Results) -> Result<Vec<String>, RaceError> {
    let files = [(PICTURE, svg::draw(machine, results)), (PAGE, text(machine, results))];
    fs::create_dir_all(directory).map_err(|source| RaceError::File { path: directory.to_owned(), source })?;
    let written = files.map(|(name, content)| {
        let path = directory.join(name);
        match fs::write(&path, content) {
            Ok(()) => Ok(path.display().to_string()),
            Err(source) => Err(RaceError::File { path, source }),
        }
    });
    written.into_iter().collect()
}

fn text(machine: &Machine, results: &Results) -> String {
    let who: String =
        results.entrants.iter().map(|entrant| format!("- **{}**: {}\n", entrant.name, entrant.about)).collect();
    let tables: Vec<String> = results.tables().iter().chain([&budgets::table(results)]).map(|t| t.markdown()).collect();
    format!(
        "# The race\n\n\
        Whole CNI plugins, timed as a container runtime calls them. Written by `{}`; `make race` does it anew.\n\n\
        {machine}. Meanwhile {}.\n\n\
        ![Distributions of the times, rates of bursts, times with pods already there, and forwarding]({PICTURE})\n\n\
        {who}\n{HOW}\n{}",
        command(),
        results.beside,
        tables.join("\n")
    )
}

/// The command line, without the directory this program is in.
fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ")
}

const HOW: &str = "\
## How it is measured

- A call is timed from before its process is made until it is reaped: environment, standard input, standard output, as
  libcni has them. Sandboxes are network namespaces made beforehand, each used once. The caller has entered the node's
  namespace, and makes processes with posix_spawn.
- Everybody has a node of their own, all in namespaces of one machine. In a round everybody adds a pod, then everybody
  deletes theirs, in orders by which everybody is behind everybody else equally often, for behind a large program the
  caches are cold. A ratio is the median of the rounds' own ratios, so what changes on the machine from one round to the
  next drops out.
- After each DEL the race waits until the pod's link is gone, and after each 25 rounds until the kernel has taken the
  sandboxes apart: what somebody leaves to later shall not be paid by others. In a burst it is part of the race. Behind an
  ADD nobody waits, so what Dotfour's daemon does 5 ms after its answer (0.05 ms, mostly on the other processor) may run beside
  whoever is next. With a wait, processors would sleep, and every process take a tenth of a millisecond longer.
- The floor's kernel work is that of Dotfour's daemon: the pair of links with tag, route and neighbour on the node;
  address, routes and neighbour in the pod; at DEL the route, and the link given up. Its process and its work are one after
  the other, with nobody to wake and nothing to read. What the daemon does for the pod behind its answer is done for the
  floor's pods as well, and in nobody's time but a burst's.
- CPU is processor time per call: of the process, of those it starts, of the daemon, with what the daemon does later
  charged to the verb. What the kernel does on its own account is nobody's.
- Forwarding is measured with two pods of everybody, between them and to the address of a further node, through the
  node's NIC and the fabric. All pods' addresses are secondary addresses of their node's NIC, so the fabric treats
  everybody alike. Dotfour has its rules in force, and connections tracked for them. ptp and bridge have none (`ipMasq:
  false`): by themselves they track nothing, which is so on no node of a cluster, for kube-proxy's rules make the kernel
  track everybody's connections. So all of it is measured by themselves, and with such rules on everybody's node. And a third
  time with a check of who sends on everybody's node as well, which Dotfour has and the others lack. TCP, MTU 1500, plain sockets: one end writes 128 KiB at a time and the other reads, or one byte goes there and one comes
  back. Both ends of a connection are on one processor, the several streams on as
  many as there are, so neither the scheduler's choice nor waking another processor is part of it. In a round everybody
  has a short turn for each measurement, one right after the other; an answer's median and p99 are those of a turn, and
  the table has the median of the turns.
- Behind a budget's ratio is its confidence interval of 95 %, where it is one of rounds. A budget is kept if the ratio
  keeps it, and unclear if the ratio misses it and part of the interval keeps it.
- Two lines among the budgets promise nothing. The floor's kernel work and the plugin alone, added up round by round, are
  what a call would take with a daemon that takes no time at all: by how much ptp takes longer than that, is the most that
  can be reached on this machine.
";
