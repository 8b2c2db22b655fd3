//! What an ADD orders, whoever wires the pod: addresses, on record.

use std::sync::Arc;
use std::time::Duration;

use dotfour_protocol::{Add, AttachmentKey, PodName, ResultFormat};

use super::{Node, started};
use crate::caller::Caller;
use crate::errors::AddError;
use crate::metrics::Phase;
use crate::pool::{Assignment, Lease, Moment, PodAddresses, Wish};

/// A call that was made less than this ago is taken to have its caller still, without a look, which would be one more question to
/// the kernel. If it has none, its answer tells, and what was made is undone, as it is where a caller ends a moment later.
const RECENT: Duration = Duration::from_millis(100);

/// An ADD, as far as the pool is concerned.
pub(super) struct Order {
    pub(super) key: Arc<AttachmentKey>,
    pub(super) pod: Option<Arc<PodName>>,
    /// In which format its caller wants the result.
    pub(super) print: Option<ResultFormat>,
    asked: PodAddresses,
    pub(super) started: Moment,
    delegated: bool,
}

/// Addresses that are on record.
pub(super) enum Leased {
    /// Assigned just now.
    New(PodAddresses),
    /// The attachment held them already.
    Existing(Lease),
}

impl Order {
    /// Takes an ADD of a network that is served. `delegated`: another plugin wires the pod.
    pub(super) fn take(add: Add, delegated: bool, caller: &Caller, node: &Node) -> Result<Self, AddError> {
        let started = started(add.started_ns);
        caller.phases.dialled(add.started_ns.map(Duration::from_nanos));
        let (key, asked) = (Arc::new(add.key), add.asked.into_iter().collect());
        let networks = &node.served.networks;
        if !networks.is_empty() && !networks.contains(&key.network) {
            return Err(AddError::UnknownNetwork { network: key.network.clone(), served: networks.clone() });
        }
        Ok(Order { key, pod: add.pod.map(Arc::new), print: add.print, asked, started, delegated })
    }

    /// Assigns, and returns once it is on record. The caller is in the gate.
    pub(super) fn lease(&self, caller: &Caller, node: &Node) -> Result<Leased, AddError> {
        let Order { key, pod, asked, started, delegated, .. } = self;
        let (asked, started, delegated) = (*asked, *started, *delegated);
        caller.phases.enter(Phase::Assign);
        // What nobody waits for is not worth a pod's wiring.
        if caller.phases.waited().is_none_or(|waited| waited > RECENT) && !caller.waits() {
            return Err(AddError::CallerGone);
        }
        let wish = || Wish { key, pod: pod.clone(), families: node.families, asked, started, delegated };
        let (assignment, ticket) = node.sweeper.assign(wish, &node.ledger, &node.metrics);
        let leased = match assignment {
            Assignment::New(addresses) => Leased::New(addresses),
            Assignment::Existing(lease) => Leased::Existing(lease),
            Assignment::HeldOtherwise => return Err(AddError::HeldOtherwise { delegated: !delegated }),
            // Other calls were quicker, again and again.
            Assignment::Unswept => return Err(AddError::Exhausted(node.ledger.pool().counts())),
            Assignment::Exhausted(counts) => return Err(AddError::Exhausted(counts)),
            Assignment::AskedUnknown(address) => return Err(AddError::AskedUnknown(address)),
            Assignment::AskedTaken(address) => return Err(AddError::AskedTaken(address)),
            Assignment::Overtaken => return Err(AddError::Overtaken),
        };
        caller.phases.enter(Phase::Record);
        match (node.ledger.commit(ticket), leased) {
            (Ok(()), Leased::Existing(lease)) => {
                match asked.iter().find(|asked| !lease.addresses.iter().any(|held| held == *asked)) {
                    Some(other) => Err(AddError::AskedOther(other)),
                    None => Ok(Leased::Existing(lease)),
                }
            }
            (Ok(()), leased) => Ok(leased),
            (Err(e), leased) => {
                if let Leased::New(_) = leased {
                    self.cancel(node);
                }
                Err(e.into())
            }
        }
    }

    /// Takes a new assignment back.
    pub(super) fn cancel(&self, node: &Node) {
        // What could not be recorded is not in the file ([`Journal::append`]); of what is there, and cannot be wired, the next
        // start finds no link.
        let _ = node.ledger.commit(node.ledger.cancel(&self.key));
    }
}
