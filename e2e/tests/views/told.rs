//! Faults planted in what daemon and runtime say.

use dotfour_datapath::link::LinkId;
use dotfour_e2e::program::Failure;
use dotfour_e2e::views::compare::short;
use dotfour_e2e::views::{Belief, Views};

use crate::stage::{Outcome, Stage, StagePod, same, sorted};

pub(crate) fn a_pod_without_a_lease_is_found(stage: &Stage) -> Outcome {
    let StagePod { address, link, who, .. } = &stage.pods[0];
    let mut views = stage.views()?;
    views.daemon.attachments.retain(|lease| short(&lease.key.container_id) != *who);
    stage.finds(
        &views,
        &[
            format!("pod {who} was given {address}, and the daemon has no lease for it"),
            format!("link {} of azure/{who}/eth0 has no lease", link.name),
            "the pool counts 3 assigned addresses, and its leases hold 2".to_owned(),
        ],
    )
}

pub(crate) fn a_pod_that_no_runtime_knows_is_found(stage: &Stage) -> Outcome {
    let StagePod { address, link, who, .. } = &stage.pods[0];
    let mut views = stage.views()?;
    views.runtime.retain(|id, _| short(id) != *who);
    stage.finds(
        &views,
        &[
            format!("azure/{who}/eth0 holds {address}, and no runtime knows it"),
            format!("link {} is of azure/{who}/eth0, which no runtime knows", link.name),
        ],
    )
}

pub(crate) fn an_address_given_to_two_pods_is_found(stage: &Stage) -> Outcome {
    let [one, other, _] = &stage.pods;
    let mut views = stage.views()?;
    for (id, (belief, _)) in &mut views.runtime {
        if short(id) == other.who {
            *belief = Belief::Up(vec![one.address.into()]);
        }
    }
    stage.finds(
        &views,
        &[
            format!("{} was given to two pods, {}", one.address, sorted([&one.who, &other.who])),
            format!("pod {} was given {}, and its lease is {}", other.who, one.address, other.address),
            format!("pod {} was given {}, and has {} inside", other.who, one.address, other.address),
        ],
    )
}

pub(crate) fn a_lease_of_another_address_is_found(stage: &Stage) -> Outcome {
    let [one, other, _] = &stage.pods;
    let mut views = stage.views()?;
    for lease in &mut views.daemon.attachments {
        if short(&lease.key.container_id) == one.who {
            lease.addresses = vec![other.address.into()];
        }
    }
    let keys = [format!("azure/{}/eth0", one.who), format!("azure/{}/eth0", other.who)];
    stage.finds(
        &views,
        &[
            format!("{} is leased twice, to {}", other.address, sorted([&keys[0], &keys[1]])),
            format!("pod {} was given {}, and its lease is {}", one.who, one.address, other.address),
            format!(
                "azure/{}/eth0 has a lease of {}, and its link {} says {}",
                one.who, other.address, one.link.name, one.address
            ),
        ],
    )
}

pub(crate) fn counts_that_do_not_add_up_are_found(stage: &Stage) -> Outcome {
    let mut views = stage.views()?;
    views.daemon.pool.free += 1;
    stage.finds(&views, &["the pool's states add up to 11, and its total is 10".to_owned()])?;
    views.daemon.pool.total += 1;
    stage.finds(&views, &["the pool has 11 addresses, and the NIC 10 secondary ones".to_owned()])?;
    let mut views = stage.views()?;
    views.daemon.pool.free -= 1;
    views.daemon.pool.quarantined += 1;
    let withheld = "1 addresses are reserved, releasing or quarantined, without a reason".to_owned();
    stage.finds(&views, &[withheld])
}

pub(crate) fn a_pod_in_doubt_may_be_there_or_not_but_not_by_halves(stage: &Stage) -> Outcome {
    let StagePod { address, link, who, .. } = &stage.pods[0];
    let doubt = |stage: &Stage| -> Result<Views, Failure> {
        let mut views = stage.views()?;
        for (id, (belief, _)) in &mut views.runtime {
            if short(id) == *who {
                *belief = Belief::InDoubt;
            }
        }
        Ok(views)
    };
    let there = doubt(stage)?;
    stage.finds(&there, &[])?;
    stage.plant(|batch| batch.delete_link("", LinkId::Index(link.index)))?;
    let mut half = doubt(stage)?;
    stage.finds(&half, &[format!("azure/{who}/eth0 has a lease of {address} and no link")])?;
    half.daemon.attachments.retain(|lease| short(&lease.key.container_id) != *who);
    half.daemon.pool.assigned -= 1;
    half.daemon.pool.cooling += 1;
    stage.finds(&half, &[])
}

pub(crate) fn a_node_that_should_be_empty_shows_every_trace(stage: &Stage) -> Outcome {
    let traces = stage.views()?.traces();
    let mut expected = vec!["of 10 addresses only 7 are free and 0 cooling".to_owned()];
    for StagePod { address, link, who, .. } in &stage.pods {
        expected.push(format!("there is a lease, azure/{who}/eth0"));
        expected.push(format!("there is a link, {}", link.name));
        expected.push(format!("there is a route to {address}/32"));
    }
    same(traces, &expected)
}
