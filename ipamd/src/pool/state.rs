//! Where one address stands.

use std::sync::Arc;
use std::time::Duration;

use dotfour_protocol::AttachmentKey;

use super::{Moment, Rest};

/// How long after its release an address is swept again and again: until then those who send to it, a service's rules
/// above all, have been told that its pod is gone.
const FRESH: Duration = Duration::from_secs(2);

/// How long after one of these sweeps there is no other. Whoever sends without a pause must find the next pod within a second
/// from when the rules that lead there have changed.
const AGAIN: Duration = Duration::from_millis(500);

/// Where one address stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody's, and may be assigned.
    Free,
    /// A pod's.
    Assigned(Arc<AttachmentKey>),
    /// Released, and resting, so that caches in the network forget the pod before.
    Cooling {
        /// When it was released.
        since: Moment,
        /// When the last sweep of its connections began; `None` before there was one, and while one is under way.
        swept: Option<Moment>,
    },
    /// Kept out of use, because somebody else uses it.
    Reserved {
        /// Who or what does.
        reason: String,
    },
    /// On its way back to Azure.
    Releasing,
    /// Found in a state that nobody can explain; never assigned.
    Quarantined {
        /// What was found.
        reason: String,
    },
}

impl State {
    /// Whether this is an address that has rested for so long.
    pub(super) fn has_rested(&self, rest: Duration, now: Moment) -> bool {
        matches!(self, State::Cooling { since, .. } if since.saturating_add(rest) <= now)
    }

    /// Whether this is an address that was released later than this.
    pub(super) fn was_released_after(&self, moment: Moment) -> bool {
        matches!(self, State::Cooling { since, .. } if *since > moment)
    }

    /// Whether this is a resting address whose connections are to be swept now.
    pub(super) fn is_due(&self, rest: Rest, now: Moment) -> bool {
        let State::Cooling { since, swept } = self else { return false };
        let over = |rest| self.has_rested(rest, now) && !self.is_swept(rest);
        let fresh = now.saturating_sub(*since) <= FRESH;
        let again = |swept: Moment| fresh && now.saturating_sub(swept) >= AGAIN;
        swept.is_none_or(again) || over(rest.floor) || over(rest.cooldown)
    }

    /// Whether this is a resting address of which a sweep is over, and no other is under way.
    pub(super) fn was_swept(&self) -> bool {
        matches!(self, State::Cooling { swept: Some(_), .. })
    }

    /// Whether this is an address whose connections were swept after a rest of so long.
    pub(super) fn is_swept(&self, rest: Duration) -> bool {
        matches!(self, State::Cooling { since, swept: Some(swept) } if since.saturating_add(rest) <= *swept)
    }
}
