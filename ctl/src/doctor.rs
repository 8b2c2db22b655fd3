//! `dotfourctl doctor`: what is wrong with this node, why it matters, and what to do.
//!
//! [`look`] gathers what can be seen, of Kubernetes' components with [`kubernetes`]; [`judge`] turns it into findings and is pure, [`report`] writes them down. It needs
//! no daemon: what only a daemon could tell is named as not seen.

mod finding;
mod flags;
mod judge;
mod kubernetes;
mod look;
mod process;
mod report;

use std::path::Path;

use finding::Severity;

/// The exit status for each outcome, as monitoring plugins have it: nothing wrong, warnings only, at least one error.
const STATUS: [(Option<Severity>, u8); 3] = [(None, 0), (Some(Severity::Warning), 1), (Some(Severity::Error), 2)];

/// The exit status where the doctor itself could not do its work.
pub(crate) const CANNOT_SAY: u8 = 3;

/// Looks, and returns the report and the exit status. `config` is the file that was asked for; `plugin` this release's
/// plugin, if another one than that beside this program.
pub(crate) fn examine(config: Option<&Path>, plugin: Option<&Path>, json: bool) -> (String, u8) {
    let (findings, unseen) = judge::judge(&look::look(config, plugin));
    let worst = findings.iter().map(|finding| finding.code.severity()).max();
    let status = STATUS.into_iter().find(|(severity, _)| *severity == worst).map_or(CANNOT_SAY, |(_, status)| status);
    (if json { report::json(&findings, &unseen) } else { report::text(&findings, &unseen) }, status)
}
