//! The daemon from its start to its end.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use dotfour_datapath::{KernelError, Socket};
use ipnet::IpNet;
use rustix::process::geteuid;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::config::Config;
use crate::errors::{counts_in_words, with_source};
use crate::forwarding::{self, ForwardingError};
use crate::install::InstallError;
use crate::install::directory::Held;
use crate::install::publisher::Publisher;
use crate::install::settings::Settings;
use crate::keeper::{self, Notice};
use crate::kernel::{NodeView, ObserveError, observe};
use crate::lease::journal::remember;
use crate::lease::ledger::NotRecorded;
use crate::lease::recover::{self, Found};
use crate::lease::{Identity, Journal, Ledger};
use crate::metrics::Metrics;
use crate::metrics::endpoint::Endpoint;
use crate::metrics::exposition::Exposition;
use crate::nic::{self, Nic, NicError};
use crate::pool::{Exclusion, ExclusionReason, Families, Moment, Pool, PoolAddress, eligible};
use crate::refill::{Refill, Reservations};
use crate::rules::{Rules, RulesError};
use crate::server::Server;
use crate::source::{AddressSource, NicView, SourceError};
use crate::startup_taint;
use crate::takeover::foreign_uses;
use crate::verbs::{Node, Served, now};
use crate::watch;
use crate::wiring::names::{EXEMPT_GROUP, LINK_INDICES, POD_GROUP};
use crate::wiring::pod::LinkIndices;
use crate::wiring::{Janitor, Wirer};

/// How often the source is asked at the start before the daemon gives up. Whoever runs the daemon starts it again.
const SOURCE_ATTEMPTS: u32 = 3;

/// How long to wait between these.
const SOURCE_RETRY: Duration = Duration::from_millis(500);

/// How long the state directory may be held by another before that is an error. A daemon that was killed while it started
/// `nft` leaves a process that holds the lock until it has become `nft`, a moment later.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Why the daemon did not start. What it did until then stays: the groups of pods' links, its rules, and kernel settings, which
/// are on record. No pod was touched but by DELs of the spool.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error("stateDir: {path} cannot be used; it must be a directory that root may write, best on a tmpfs")]
    StateDir {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another daemon uses the state directory.
    #[error(
        "another dotfour-ipamd uses stateDir {path}; stop it first, or give this one a stateDir and socket of its own"
    )]
    AlreadyRunning {
        /// The directory.
        path: String,
    },
    /// A part of the process itself cannot be set up.
    #[error("cannot {what}")]
    Setup {
        /// What failed.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The node's network cannot be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The source does not report.
    #[error("no pod addresses to serve, after {SOURCE_ATTEMPTS} attempts")]
    Source(#[source] SourceError),
    /// No NIC can be chosen.
    #[error(transparent)]
    Nic(#[from] NicError),
    /// Pods cannot send what the NIC cannot.
    #[error("mtu: {configured} is more than the {limit} bytes that {nic} carries; lower it, or leave it out")]
    Mtu {
        /// What is configured.
        configured: u32,
        /// The NIC's.
        limit: u32,
        /// The NIC's name.
        nic: String,
    },
    /// Leases cannot be recorded.
    #[error("stateDir: {path} cannot be written")]
    NotRecorded {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: NotRecorded,
    },
    /// A pod's link cannot be put into its group.
    #[error("the links of pods that are there cannot be put into the groups that the rules know them by")]
    Regroup(#[source] KernelError),
    /// The node does not forward.
    #[error(transparent)]
    Forwarding(#[from] ForwardingError),
    /// The rules are not in force.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// Metrics cannot be served.
    #[error("metrics: {target} cannot be served; free it, or give metrics another place")]
    Metrics {
        /// The configured place.
        target: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The socket cannot be served.
    #[error("socket: {path} cannot be served")]
    Socket {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Runs the daemon until SIGTERM or SIGINT. Pods' wiring stays when it ends.
pub fn run(config: &Config) -> Result<(), StartError> {
    let _lock = lock_state_dir(&config.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::Setup { what: "start the async runtime", source })?;
    let outcome = runtime.block_on(serve(config));
    // Some look may wait for somebody on a thread of its own. Nobody waits for that.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: &Config) -> Result<(), StartError> {
    let signals = |kind| signal(kind).map_err(|source| StartError::Setup { what: "listen for signals", source });
    let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let told_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut told_to_stop = pin!(told_to_stop);

    // Before anything is changed, so that a place that is taken is one clear error. Scrapers wait in line until then.
    let endpoint = Endpoint::bind(&config.metrics)
        .await
        .map_err(|source| StartError::Metrics { target: config.metrics.to_string(), source })?;
    let source = AddressSource::new(config);
    let reports = tokio::select! {
        reports = first_report(&source) => reports?,
        () = &mut told_to_stop => return Ok(()),
    };
    let view = observe().await?;
    let (nic, report) = nic::choose(&reports, &view, config.nic.as_deref())?;
    let nic = with_pod_mtu(nic, config.mtu)?;
    let identity =
        Identity::of_this_machine().map_err(|source| StartError::Setup { what: "read the boot id", source })?;
    let found = recover::find(&view.links);
    let (pool, families) = fill_pool(config, &nic, report, &view, &found, &identity);
    let metrics = Metrics::new(config.slow_add);
    let served = Served { networks: config.networks.clone(), exempt_namespaces: config.metadata_exempt.clone() };
    let indices = Arc::new(LinkIndices::starting_at(index_seed(&view)));
    // Before the rules, so that they never let a pod through whose namespace is exempt no more.
    regroup(&pool, &served, &view, &indices)?;
    // Before the node forwards, and before any pod is served.
    let rules = tokio::select! {
        rules = Rules::start(config, &nic, pod_networks(report, &pool), metrics.rules.clone()) => rules?,
        () = &mut told_to_stop => return Ok(()),
    };
    let settings = settings(&config.state_dir)?;
    forwarding::ensure(families, &nic.name, &settings)?;
    if config.reclaim_nic_addresses {
        forwarding::promote_secondaries(&nic.name, &settings)?;
    }

    let netlink = |source| StartError::Setup { what: "open a netlink socket", source };
    let (janitor, janitor_thread) = Janitor::start(Socket::open().map_err(netlink)?).map_err(netlink)?;
    found.condemned_groups.iter().for_each(|group| janitor.bury(*group));
    let (counts, recovered) = (counts_in_words(&pool.counts()), pool.leases().count());
    let ledger = Ledger::new(pool, Journal::new(&config.state_dir, identity));
    // Before the first ADD, so that a journal that cannot be written is known at once.
    ledger
        .checkpoint()
        .map_err(|source| StartError::NotRecorded { path: config.state_dir.display().to_string(), source })?;
    let node = Node::new(ledger, nic, families, served, source.kind(), janitor, metrics).map_err(netlink)?;
    let (notices, noticed) = mpsc::channel();
    let keeper_thread = keeper::start(Arc::clone(&node), &indices, config.spool_dir.clone(), noticed)
        .map_err(|source| StartError::Setup { what: "open spoolDir", source })?;
    watch::start(notices.clone())
        .map_err(|source| StartError::Setup { what: "listen for links that vanish", source })?;
    let server = Server::start(&config.socket, &node, &indices)
        .map_err(|source| StartError::Socket { path: config.socket.display().to_string(), source })?;
    let scrapes = endpoint
        .map(|endpoint| tokio::spawn(endpoint.serve(Exposition::of(&node, server.settler()), config.socket.clone())));
    info!(
        nic = node.nic.name, address = %node.nic.address, families = %node.families, source = source.kind(), recovered,
        "serving on {}: {counts}", config.socket.display()
    );

    // The node's promise, so it is the last thing.
    let mut publisher = Publisher::new(config);
    let mut taint = config.startup_taint.clone();
    let mut refill = Refill::new(source, Arc::clone(&node), config, notices.clone(), rules);
    refill.note_nic_addresses(&view, &node.nic);
    let mut refresh = tokio::time::interval(config.refresh);
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let looks = async {
        // The first is at once, and the source has reported just now.
        refresh.tick().await;
        loop {
            if let Some(publisher) = &mut publisher {
                publisher.look().await;
            }
            remove_startup_taint(&mut taint, publisher.as_ref());
            refresh.tick().await;
            refill.look().await;
        }
    };
    // A look may wait for others for long. It is given up then.
    tokio::select! {
        () = looks => {}
        () = told_to_stop => {}
    }
    info!("stopping; pods keep their wiring");
    server.stop();
    if let Some(scrapes) = scrapes {
        scrapes.abort();
        // Its end removes the socket.
        let _ = scrapes.await;
    }
    // The keeper works until it is told.
    let _ = notices.send(Notice::Stop);
    join(keeper_thread);
    drop(refill);
    // The last reference: its end ends the janitor, which deletes what is still condemned.
    drop(node);
    join(janitor_thread);
    Ok(())
}

/// Begins to take the start-up taint off the node, once, when the promise is given: by our network configuration or, where
/// somebody else writes it, by serving. Nothing waits for it.
fn remove_startup_taint(taint: &mut Option<String>, publisher: Option<&Publisher<'_>>) {
    if publisher.is_none_or(Publisher::has_published)
        && let Some(key) = taint.take()
    {
        tokio::spawn(startup_taint::remove(key));
    }
}

/// The NIC, with the MTU that pods' links get.
fn with_pod_mtu(nic: Nic, configured: Option<u32>) -> Result<Nic, StartError> {
    match configured {
        Some(mtu) if mtu > nic.mtu => Err(StartError::Mtu { configured: mtu, limit: nic.mtu, nic: nic.name }),
        Some(mtu) => Ok(Nic { mtu, ..nic }),
        None => Ok(nic),
    }
}

/// What pods' addresses are from: the NIC's subnets, and what pods have that the source reports no more.
fn pod_networks(report: &NicView, pool: &Pool) -> Vec<IpNet> {
    let subnets: Vec<IpNet> = report.subnets.iter().map(|subnet| subnet.prefix).collect();
    let addresses = pool.leases().flat_map(|(_, lease)| lease.addresses.iter());
    let others: Vec<IpNet> =
        addresses.filter(|address| !subnets.iter().any(|subnet| subnet.contains(address))).map(IpNet::from).collect();
    [subnets, others].concat()
}

/// Puts the host links of the pods that live into the groups that the configuration asks for by now.
fn regroup(pool: &Pool, served: &Served, view: &NodeView, indices: &Arc<LinkIndices>) -> Result<(), StartError> {
    let groups: HashMap<u32, u32> = view.links.iter().map(|link| (link.index, link.group)).collect();
    let leases = pool.leases().filter_map(|(_, lease)| Some((lease.link.as_ref()?, lease.pod.as_deref())));
    let wrong: Vec<_> = leases
        .map(|(link, pod)| (link, served.group_of(pod)))
        .filter(|(link, group)| groups.get(&link.index).is_some_and(|is| is_to_change(*is, *group)))
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let mut wirer = Wirer::new(Arc::clone(indices))
        .map_err(|source| StartError::Setup { what: "open a netlink socket", source })?;
    for (link, group) in &wrong {
        wirer.regroup(link, *group).map_err(StartError::Regroup)?;
    }
    info!(links = wrong.len(), "put into the groups of exempt and of other pods");
    Ok(())
}

/// Whether a host link is to leave a group. Those of older releases are in none. One that is none of ours is somebody else's, and
/// means nothing here, unless the pod is to be exempt.
fn is_to_change(is: u32, to_be: u32) -> bool {
    match is {
        0 | EXEMPT_GROUP | POD_GROUP => is != to_be,
        _ => to_be == EXEMPT_GROUP,
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("a thread").to_owned();
    if thread.join().is_err() {
        warn!("{name} had panicked");
    }
}

/// The pool as it is known at the start: what the source offers, less what is in use.
fn fill_pool(
    config: &Config,
    nic: &Nic,
    report: &NicView,
    view: &NodeView,
    found: &Found,
    identity: &Identity,
) -> (Pool, Families) {
    let mut pool = Pool::new(config.rest);
    let (offered, excluded) = eligible(report, nic);
    tell_excluded(&excluded);
    pool.apply_view(&offered);
    let families = config.ip_families.unwrap_or_else(|| offered_families(&offered));
    for (family, count) in counts_by_family(&offered, families) {
        if count < usize::from(config.max_pods) {
            warn!(
                "the source offers {count} {family} pod addresses on {}, fewer than maxPods ({})",
                nic.name, config.max_pods
            );
        }
    }
    let remembered = remember(&config.state_dir, identity);
    let restored = recover::restore(&mut pool, found, &remembered, nic.index, now());
    for finding in remembered.findings.iter().chain(&restored.findings) {
        warn!("{finding}");
    }
    for key in &restored.collected {
        info!(%key, "collected: its pod went away while the daemon did");
    }
    for link in &found.foreign {
        warn!(link, "looks like a pod's link and is not readable as one of ours; left alone");
    }
    // While nobody is served, nobody leaves.
    Reservations::make(&mut pool, &foreign_uses(view), Moment::MAX).tell(&nic.name);
    (pool, families)
}

/// Says which addresses of the source are not for pods, and why: who misses some looks here first. That the node's own are
/// not needs no saying.
fn tell_excluded(excluded: &[Exclusion]) {
    for reason in [ExclusionReason::AzureReserved, ExclusionReason::OutsideSubnet] {
        let of_reason = excluded.iter().filter(|exclusion| exclusion.reason == reason);
        let addresses: Vec<String> = of_reason.map(|exclusion| exclusion.address.to_string()).collect();
        if !addresses.is_empty() {
            info!(addresses = addresses.join(","), "not for pods: {reason}");
        }
    }
}

/// What pods get if nobody says: an address of each family that is there for pods. A NIC without any offers IPv4 one day.
fn offered_families(offered: &[PoolAddress]) -> Families {
    match Families::of(offered.iter().map(|candidate| candidate.address)) {
        Families { v4: false, v6: false } => Families::V4,
        families => families,
    }
}

fn counts_by_family(offered: &[PoolAddress], families: Families) -> impl Iterator<Item = (&'static str, usize)> {
    let v4 = offered.iter().filter(|candidate| candidate.address.is_ipv4()).count();
    let both = [("IPv4", families.v4, v4), ("IPv6", families.v6, offered.len() - v4)];
    both.into_iter().filter(|(_, wanted, _)| *wanted).map(|(family, _, count)| (family, count))
}

/// Holds the state directory for this process, by a lock of the kernel's that ends with it, however it ends.
fn lock_state_dir(path: &Path) -> Result<Held, StartError> {
    let unusable = |source| StartError::StateDir { path: path.display().to_string(), source };
    make_state_dir(path, geteuid().as_raw()).map_err(unusable)?;
    Held::new(path, LOCK_PATIENCE).map_err(|e| match e {
        InstallError::Busy { .. } => StartError::AlreadyRunning { path: path.display().to_string() },
        InstallError::File { source, .. } => unusable(source),
        other => unusable(io::Error::other(other)),
    })
}

/// Makes the directory, for `own` alone. One that is there and empty was made for the daemon, as the kubelet does for a mount,
/// and is treated alike. One with files in it may be others' too: it keeps its mode, and will do if nobody else can put
/// records of theirs in the place of ours.
fn make_state_dir(path: &Path, own: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let directory = fs::metadata(path)?;
    if directory.uid() != own {
        return Err(io::Error::other(format!("it belongs to the user {}", directory.uid())));
    }
    if fs::read_dir(path)?.next().is_none() {
        // Whatever the umask is.
        return fs::set_permissions(path, PermissionsExt::from_mode(0o700));
    }
    if directory.mode() & 0o022 != 0 {
        return Err(io::Error::other("there are files in it, and group or others may write to it"));
    }
    Ok(())
}

async fn first_report(source: &AddressSource) -> Result<Vec<NicView>, StartError> {
    let mut attempt = 1;
    loop {
        match source.report().await {
            Ok(reports) => return Ok(reports),
            Err(e) if attempt == SOURCE_ATTEMPTS => return Err(StartError::Source(e)),
            Err(e) => warn!("attempt {attempt} of {SOURCE_ATTEMPTS}: {}", with_source(&e)),
        }
        attempt += 1;
        tokio::time::sleep(SOURCE_RETRY).await;
    }
}

/// The kernel's settings, which are on record in the state directory once they are changed.
fn settings(state_dir: &Path) -> Result<Settings, StartError> {
    Settings::new(state_dir).map_err(|source| StartError::Setup { what: "read the boot id", source })
}

/// A place in the range of link indexes that differs from start to start and is behind every link there is.
fn index_seed(view: &NodeView) -> u32 {
    let highest = view.links.iter().map(|link| link.index).filter(|index| LINK_INDICES.contains(index)).max();
    match highest {
        Some(index) => index - LINK_INDICES.start() + 1,
        None => u32::try_from(now().as_nanos() % (1 << 28)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leaves_a_group_of_ours_or_none_and_a_stranger_s_only_to_be_exempt() {
        for is in [0, POD_GROUP, EXEMPT_GROUP] {
            for to_be in [POD_GROUP, EXEMPT_GROUP] {
                assert_eq!(is_to_change(is, to_be), is != to_be);
            }
        }
        assert!(is_to_change(7, EXEMPT_GROUP) && !is_to_change(7, POD_GROUP));
    }

    #[test]
    fn a_state_directory_is_root_s_alone_and_one_of_others_keeps_its_mode_or_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (path, own) = (directory.path().join("run/dotfour"), geteuid().as_raw());
        let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
        let set = |mode| fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        make_state_dir(&path, own).unwrap();
        assert_eq!(mode(), 0o700);
        set(0o755);
        make_state_dir(&path, own).unwrap();
        assert_eq!(mode(), 0o700, "as the kubelet makes it for us");
        fs::write(path.join("theirs"), "").unwrap();
        set(0o755);
        make_state_dir(&path, own).unwrap();
        assert_eq!(mode(), 0o755);
        for writable in [0o1777, 0o770] {
            set(writable);
            let e = make_state_dir(&path, own).unwrap_err();
            assert!(e.to_string().contains("group or others may write to it"), "{e}");
            assert_eq!(mode(), writable);
        }
        set(0o755);
        let e = make_state_dir(&path, own + 1).unwrap_err();
        assert!(e.to_string().contains(&format!("belongs to the user {own}")), "{e}");
    }
}
