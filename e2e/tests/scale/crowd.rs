//! ADD and DEL on a node with many pods, beside both on a node with ten.

use dotfour_rig::Place;

use crate::stage::{Host, Outcome, Side, compare, vnet};

/// The pods of the other node.
const FEW: usize = 10;

/// How many pods there are, and what they may cost.
pub(crate) struct Crowd {
    pub(crate) pods: usize,
    pub(crate) limit: f64,
}

pub(crate) fn counts_little(place: &Place, crowd: &Crowd) -> Outcome {
    let vnet = vnet(place, "crowd")?;
    let (empty, full) = (Host::start(&vnet, 1)?, Host::start(&vnet, 2)?);
    empty.settle()?;
    let _few = empty.pods(FEW, "web")?;
    let _many = full.pods(crowd.pods, "web")?;
    let side = |host, pods| Side { host, what: format!("among {pods} pods"), locked: None };
    compare(&side(&empty, FEW), &side(&full, crowd.pods), crowd.limit)
}
