//! Keeps the table as planned, whatever files, other programs and time do.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tracing::{error, info, warn};

use super::RulesError;
use super::agent_files::{AgentSettings, Merged};
use super::apply::{ApplyError, Nft};
use super::directory::Directory;
use super::events::{Events, Heard};
use super::plan::{Inputs, plan};
use super::table::{Content, TABLE};
use crate::config::{Config, Masquerade, Metadata};
use crate::errors::with_source;
use crate::metrics::{RulesMetrics, RulesReason};
use crate::nic::Nic;

/// How often the files are looked at. A change counts at the second look.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// How often the table is compared with the plan although nobody has told of a change: the ip-masq-agent's own default.
const RESYNC: Duration = Duration::from_secs(60);

/// The longest that a file can ask for. The clock cannot add what a file can say: its moments end.
const LONGEST_RESYNC: Duration = Duration::from_hours(24);

/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// The keeper of one table.
#[derive(Debug)]
pub struct Enforcer {
    masquerade: Masquerade,
    metadata: Metadata,
    nic: Nic,
    pods: Vec<IpNet>,
    directory: Option<Directory>,
    agent: Option<AgentSettings>,
    /// What was last warned of.
    told: Vec<String>,
    content: Content,
    nft: Nft,
    events: Events,
    metrics: RulesMetrics,
    failing: bool,
    /// What was heard of others while the table was made.
    heard_meanwhile: Heard,
    /// Somebody may have changed what an outline does not show: the table is to be written whatever it looks like.
    in_doubt: bool,
    /// The last transaction of ours was more than there is room for, and hid what others did.
    crowded: bool,
    next_look: Instant,
    next_check: Instant,
}

impl Enforcer {
    /// Puts the rules in force.
    pub fn start(config: &Config, nic: &Nic, pods: Vec<IpNet>, metrics: RulesMetrics) -> Result<Self, RulesError> {
        let nft = Nft::find()?;
        // Before the first look at the table, so that no change falls in between.
        let events = Events::listen().map_err(RulesError::Watch)?;
        let masquerade = config.masquerade.clone();
        let mut directory = masquerade.config_dir.as_ref().map(|path| Directory::new(path, &config.state_dir));
        let merged = directory.as_mut().map(Directory::read);
        let now = Instant::now();
        let mut enforcer = Enforcer {
            content: content(&masquerade, config.metadata, None, nic, &pods).0,
            masquerade,
            metadata: config.metadata,
            nic: nic.clone(),
            pods,
            directory,
            agent: None,
            told: Vec::new(),
            nft,
            events,
            metrics,
            failing: false,
            heard_meanwhile: Heard::default(),
            in_doubt: false,
            crowded: false,
            next_look: now + INTERVAL,
            next_check: now,
        };
        if let Some(merged) = merged {
            if !merged.bad.is_empty() {
                let recalled = enforcer.directory.as_ref().and_then(Directory::recall);
                let instead =
                    if recalled.is_some() { "the last good ones are used" } else { "only the good ones are used" };
                warn!("not all files of the ip-masq-agent can be used; {instead}");
                enforcer.agent = recalled.or_else(|| merged.settings.clone());
            }
            enforcer.take(merged);
        }
        enforcer.replan();
        enforcer.enforce(RulesReason::Start)?;
        Ok(enforcer)
    }

    /// A descriptor that becomes readable when somebody changed a table.
    ///
    /// # Errors
    /// There is none to be had.
    pub fn events(&self) -> io::Result<OwnedFd> {
        self.events.as_fd().try_clone_to_owned()
    }

    /// See [`super::Rules::cover`].
    pub fn cover(&mut self, pods: &[IpNet]) -> Result<(), ApplyError> {
        let new: Vec<IpNet> = pods.iter().filter(|net| !self.covers(net)).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        info!(?new, "pods of further networks");
        self.pods.extend(new.iter().copied());
        self.replan();
        self.enforce(RulesReason::Changed).inspect_err(|_| {
            // So that the next call does not think it done.
            self.pods.retain(|net| !new.contains(net));
        })
    }

    fn covers(&self, net: &IpNet) -> bool {
        self.pods.iter().any(|covered| covered.contains(net))
    }

    /// Looks at everything whose time has come. True if somebody else had changed the table, or may have.
    pub fn tick(&mut self) -> bool {
        let mut heard = self.events.drain();
        let meanwhile = std::mem::take(&mut self.heard_meanwhile);
        heard.changed_by.extend(meanwhile.changed_by);
        heard.missed |= meanwhile.missed;
        if !heard.changed_by.is_empty() {
            warn!(by = ?heard.changed_by, "somebody else changed table inet {TABLE}; putting it back");
        } else if heard.missed {
            info!("the kernel's word of changed rules was lost; writing table inet {TABLE} anew");
        }
        let altered = heard.missed || !heard.changed_by.is_empty();
        self.in_doubt |= altered;
        let now = Instant::now();
        let mut changed = false;
        if now >= self.next_look {
            self.next_look = now + INTERVAL;
            if let Some(merged) = self.directory.as_mut().and_then(Directory::look) {
                self.take(merged);
                changed = self.replan();
            }
        }
        if altered || changed || now >= self.next_check {
            let reason = if changed { RulesReason::Changed } else { RulesReason::Restored };
            // What fails is told there, and tried again.
            let _ = self.enforce(reason);
        }
        altered
    }

    /// Believes the files, unless one is bad.
    fn take(&mut self, merged: Merged) {
        self.metrics.bad_files(merged.bad.len());
        for warning in &merged.warnings {
            warn!("{warning}");
        }
        if merged.bad.is_empty() {
            if let Some(Err(e)) = self.directory.as_ref().map(|directory| directory.remember(merged.settings.as_ref()))
            {
                warn!("the files of the ip-masq-agent cannot be remembered in stateDir: {e}");
            }
            self.agent = merged.settings;
            return;
        }
        for bad in &merged.bad {
            error!("masquerade.configDir: the last good rules stay, for a file is bad: {bad}");
        }
    }

    /// True if the rules are to be others.
    fn replan(&mut self) -> bool {
        let (content, warnings) = content(&self.masquerade, self.metadata, self.agent.as_ref(), &self.nic, &self.pods);
        for warning in warnings.iter().filter(|warning| !self.told.contains(warning)) {
            warn!("{warning}");
        }
        self.told = warnings;
        let changed = content.fingerprint != self.content.fingerprint;
        self.content = content;
        changed
    }

    /// Makes the table as planned. Writes nothing if it is, unless it is in doubt.
    fn enforce(&mut self, reason: RulesReason) -> Result<(), ApplyError> {
        let begun = Instant::now();
        let outcome = self.nft.outline().and_then(|present| {
            if !self.in_doubt && present.as_ref() == Some(&self.content.outline()) {
                return Ok(None);
            }
            self.nft.apply(&self.content, present.as_ref()).map(Some)
        });
        match &outcome {
            Ok(None) => {}
            Ok(Some(pid)) => {
                self.metrics.applied(reason, true);
                info!(took = ?begun.elapsed(), "table inet {TABLE} is in force, {}", reason.why());
                self.in_doubt = false;
                self.forget_own(*pid);
            }
            Err(e) => {
                self.metrics.applied(reason, false);
                if !self.failing && reason != RulesReason::Start {
                    error!("table inet {TABLE} is not as it should be; trying again: {}", with_source(e));
                }
            }
        }
        if self.failing && outcome.is_ok() {
            info!("table inet {TABLE} is as it should be again");
        }
        self.failing = outcome.is_err();
        self.next_check = Instant::now() + if self.failing { RETRY } else { resync(self.agent.as_ref()) };
        outcome.map(|_| ())
    }

    /// Takes the events of our own transaction, which were told before it ended, from those of others.
    fn forget_own(&mut self, own: u32) {
        let mut heard = self.events.drain();
        heard.changed_by.remove(&own);
        // Another process that has the number makes nft's a negative one, which is not known here.
        heard.changed_by.retain(|by| i32::try_from(*by).is_ok());
        // Where our own transaction is more than there is room for, another will not do better.
        let crowded = heard.missed;
        heard.missed &= !self.crowded;
        self.crowded = crowded;
        self.heard_meanwhile = heard;
    }
}

fn resync(agent: Option<&AgentSettings>) -> Duration {
    agent.and_then(|agent| agent.resync).unwrap_or(RESYNC).min(LONGEST_RESYNC)
}

fn content(
    masquerade: &Masquerade,
    metadata: Metadata,
    agent: Option<&AgentSettings>,
    nic: &Nic,
    pods: &[IpNet],
) -> (Content, Vec<String>) {
    let inputs = Inputs {
        masquerade,
        metadata,
        agent,
        nic: &nic.name,
        node: nic.address,
        node_v6: nic.address_v6,
        azure_pods: pods,
        // The plan knows them; a daemon that has some does not exist yet (`mode: kubenet` is refused).
        kubenet_pods: &[],
    };
    let planned = plan(&inputs);
    (Content::of(&planned.plan), planned.warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_that_the_clock_cannot_add_is_a_day() {
        let asked = |resync| super::resync(Some(&AgentSettings { resync, ..AgentSettings::default() }));
        assert_eq!((super::resync(None), asked(None)), (RESYNC, RESYNC));
        assert_eq!(asked(Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert_eq!(asked(Some(Duration::MAX)), LONGEST_RESYNC);
        assert!(Instant::now().checked_add(LONGEST_RESYNC).is_some());
    }
}
