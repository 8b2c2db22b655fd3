//! The refill: looks at the source and at the node again and again, and lets the pool follow.

use std::net::IpAddr;
use std::sync::{Arc, mpsc};

use ipnet::IpNet;
use tracing::{info, warn};

use crate::config::Config;
use crate::errors::with_source;
use crate::keeper::Notice;
use crate::kernel::{NodeView, observe};
use crate::nic::{self, Nic};
use crate::pool::{Moment, Pool, eligible};
use crate::rules::Rules;
use crate::source::AddressSource;
use crate::takeover::{describe, foreign_uses, on_nic};
use crate::verbs::{Node, now};

/// What it takes to look again.
#[derive(Debug)]
pub struct Refill<'c> {
    source: AddressSource,
    node: Arc<Node>,
    config: &'c Config,
    notices: mpsc::Sender<Notice>,
    rules: Rules,
    /// The networks that the rules are known to cover.
    covered: Vec<IpNet>,
    /// What the last look found, so that what lasts is told once.
    failing: bool,
    withdrawn: Vec<IpAddr>,
    on_nic: Vec<IpNet>,
}

impl<'c> Refill<'c> {
    /// A refill for a node that serves. `notices` lead to the keeper; `rules` follow the source's subnets.
    pub fn new(
        source: AddressSource,
        node: Arc<Node>,
        config: &'c Config,
        notices: mpsc::Sender<Notice>,
        rules: Rules,
    ) -> Self {
        Refill {
            source,
            node,
            config,
            notices,
            rules,
            failing: false,
            covered: vec![],
            withdrawn: vec![],
            on_nic: vec![],
        }
    }

    /// One look. Cancel safe: a look that is given up changes nothing, or all that it saw.
    pub async fn look(&mut self) {
        let outcome = self.try_look().await;
        match &outcome {
            Ok(()) if self.failing => info!("the source reports again"),
            Err(reason) if !self.failing => warn!("the pool stays as it is: {reason}"),
            _ => {}
        }
        self.node.metrics.source_report(outcome.is_ok());
        self.failing = outcome.is_err();
    }

    async fn try_look(&mut self) -> Result<(), String> {
        let reports = self.source.report().await.map_err(|e| with_source(&e))?;
        let mut seen = now();
        let mut view = observe().await.map_err(|e| with_source(&e))?;
        let (nic, report) = nic::choose(&reports, &view, self.config.nic.as_deref()).map_err(|e| e.to_string())?;
        if nic.index != self.node.nic.index {
            return Err(format!("the source means {} now, not {}", nic.name, self.node.nic.name));
        }
        let (offered, _) = eligible(report, &nic);
        // The pool's addresses would be taken from it, and nobody has said that they are gone.
        if offered.is_empty() && self.node.ledger.pool().counts().total > 0 {
            return Err("the source reports no pod address any more".to_owned());
        }
        // Before an address of a further subnet can be lent.
        let subnets: Vec<IpNet> = report.subnets.iter().map(|subnet| subnet.prefix).collect();
        if subnets != self.covered {
            self.rules.cover(subnets.clone()).await.map_err(|e| with_source(&e))?;
            self.covered = subnets;
            // That may have taken long, and pods have come and gone.
            seen = now();
            view = observe().await.map_err(|e| with_source(&e))?;
        }
        let uses = foreign_uses(&view);
        let (change, reservations) = {
            let mut pool = self.node.ledger.pool();
            (pool.apply_view(&offered), Reservations::make(&mut pool, &uses, seen))
        };
        reservations.tell(&nic.name);
        // What rests is on record, as after a DEL, and what will. If it cannot be, the journal has said so.
        if reservations.changed() {
            let _ = self.node.ledger.checkpoint();
        }
        if !change.added.is_empty() || !change.removed.is_empty() {
            info!(added = change.added.len(), removed = change.removed.len(), "the pool follows the source");
        }
        for address in change.withdrawn_in_use.iter().filter(|address| !self.withdrawn.contains(address)) {
            warn!(%address, "is used by a pod, and the source does not report it any more");
        }
        self.withdrawn = change.withdrawn_in_use;
        self.note_nic_addresses(&view, &nic);
        Ok(())
    }

    /// Pool addresses on the NIC itself: removed if the configuration asks for it, reported otherwise.
    /// The node's own addresses are none of them, even if the pool had one until a moment ago.
    pub fn note_nic_addresses(&mut self, view: &NodeView, nic: &Nic) {
        let held = {
            let pool = self.node.ledger.pool();
            let own: Vec<IpAddr> = nic.own_addresses().collect();
            on_nic(view, nic.index, |address| pool.offers(address) && !own.contains(&address))
        };
        if !held.is_empty() && self.config.reclaim_nic_addresses {
            // The keeper lives as long as this.
            let _ = self.notices.send(Notice::Reclaim(held));
        } else if !held.is_empty() && held != self.on_nic {
            warn!("{}", describe(&held, &self.node.nic.name));
            self.on_nic = held;
        }
    }
}

/// What was kept out of the pool because others use it, and what they do not use any more.
#[derive(Debug)]
pub struct Reservations {
    reserved: Vec<(IpAddr, String)>,
    let_go: Vec<IpAddr>,
}

impl Reservations {
    /// Keeps what others use out of the pool, as it was `seen` at that moment or later, and lets go of what they do not use any more.
    pub fn make(pool: &mut Pool, uses: &[(IpAddr, String)], seen: Moment) -> Self {
        let (reserved, let_go) = pool.reserve_exactly(uses, seen, now());
        Reservations { reserved, let_go }
    }

    /// Whether there was anything to do.
    pub fn changed(&self) -> bool {
        !self.reserved.is_empty() || !self.let_go.is_empty()
    }

    /// Says it in the log, which may take a while: not to be done while the pool is locked.
    pub fn tell(&self, nic: &str) {
        // What is on the NIC is one finding of its own.
        for (address, reason) in self.reserved.iter().filter(|(_, reason)| *reason != format!("found on {nic}")) {
            warn!(%address, "is offered for pods and {reason}; kept out of the pool");
        }
        for address in &self.let_go {
            info!(%address, "is not used by others any more; rests before it is for pods");
        }
    }
}
