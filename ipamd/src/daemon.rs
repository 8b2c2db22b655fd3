//! The daemon from its start to its end.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dotfour_datapath::Socket;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::config::Config;
use crate::errors::{counts_in_words, with_source};
use crate::kernel::{NodeView, ObserveError, observe};
use crate::nic::{self, NicError};
use crate::pool::{Exclusion, Pool, PoolAddress, eligible};
use crate::recover::{adopt, recover};
use crate::server::Server;
use crate::source::{AddressSource, NicView, SourceError};
use crate::verbs::{Node, now};
use crate::wiring::Janitor;
use crate::wiring::names::LINK_INDICES;
use crate::wiring::pod::LinkIndices;

/// How often the source is asked at the start before the daemon gives up. Whoever runs the daemon starts it again.
const SOURCE_ATTEMPTS: u32 = 3;

/// How long to wait between these.
const SOURCE_RETRY: Duration = Duration::from_millis(500);

/// Why the daemon did not start. Nothing on the node was changed.
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
    for key in &config.without_effect {
        warn!("{key}: accepted, but without effect in this version");
    }
    let _lock = lock_state_dir(&config.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::Setup { what: "start the async runtime", source })?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> Result<(), StartError> {
    let signals = |kind| signal(kind).map_err(|source| StartError::Setup { what: "listen for signals", source });
    let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);

    let source = AddressSource::new(config);
    let view = observe().await?;
    let reports = first_report(&source).await?;
    let (nic, report) = nic::choose(&reports, &view, config.nic.as_deref())?;
    let mut pool = Pool::new(config.cooldown);
    let offered = fill(&mut pool, report);
    if offered < usize::from(config.max_pods) {
        warn!("the source offers {offered} pod addresses on {}, fewer than maxPods ({})", nic.name, config.max_pods);
    }
    let recovered = recover(&view.links);
    for finding in adopt(&mut pool, &recovered.leases) {
        warn!("{finding}");
    }
    reserve_node_addresses(&mut pool, &view);
    for link in &recovered.foreign {
        warn!(link, "looks like a pod's link and is not one of ours; left alone");
    }
    ensure_forwarding()?;

    let netlink = |source| StartError::Setup { what: "open a netlink socket", source };
    let (janitor, janitor_thread) = Janitor::start(Socket::open().map_err(netlink)?).map_err(netlink)?;
    recovered.condemned_groups.iter().for_each(|group| janitor.bury(*group));
    let counts = counts_in_words(&pool.counts());
    let node = Node::new(pool, nic, config.networks.clone(), source.kind(), janitor);
    let indices = Arc::new(LinkIndices::starting_at(index_seed(&view)));
    let server = Server::start(&config.socket, &node, &indices)
        .map_err(|source| StartError::Socket { path: config.socket.display().to_string(), source })?;
    info!(
        nic = node.nic.name, address = %node.nic.address, source = source.kind(), recovered = recovered.leases.len(),
        "serving on {}: {counts}", config.socket.display()
    );

    let mut refresh = tokio::time::interval(config.refresh);
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    refresh.tick().await;
    let mut failing = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = refresh.tick() => failing = refill(&source, &node, config, failing).await,
        }
    }
    info!("stopping; pods keep their wiring");
    server.stop();
    // The last reference: its end ends the janitor, which deletes what is still condemned.
    drop(node);
    if janitor_thread.join().is_err() {
        warn!("the janitor had panicked");
    }
    Ok(())
}

/// Holds the state directory for this process, by a lock of the kernel's that ends with it, however it ends.
fn lock_state_dir(path: &Path) -> Result<File, StartError> {
    let unusable = |source| StartError::StateDir { path: path.display().to_string(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
    let directory = File::open(path).map_err(unusable)?;
    directory.set_permissions(PermissionsExt::from_mode(0o700)).map_err(unusable)?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(Errno::WOULDBLOCK) => Err(StartError::AlreadyRunning { path: path.display().to_string() }),
        Err(e) => Err(unusable(e.into())),
    }
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

/// Puts what a report offers into the pool; returns how many addresses pods may have.
fn fill(pool: &mut Pool, report: &NicView) -> usize {
    let (offered, excluded) = eligible(report);
    for Exclusion { address, reason } in excluded {
        tracing::debug!(%address, ?reason, "does not enter the pool");
    }
    apply(pool, &offered);
    offered.len()
}

fn apply(pool: &mut Pool, offered: &[PoolAddress]) {
    let change = pool.apply_view(offered);
    if !change.added.is_empty() || !change.removed.is_empty() {
        info!(added = change.added.len(), removed = change.removed.len(), "the pool follows the source");
    }
    for address in change.withdrawn_in_use {
        warn!(%address, "is used by a pod, and the source does not report it any more");
    }
}

/// What is on a link of the node is not a pod's, whatever a source says.
fn reserve_node_addresses(pool: &mut Pool, view: &NodeView) {
    for (address, link) in view.all_addresses() {
        if pool.reserve(address, format!("found on {link}")) {
            warn!(%address, "is offered for pods and found on {link}; kept out of the pool");
        }
    }
}

/// One look at the source. Returns whether it failed, so that a failure that lasts is told once.
async fn refill(source: &AddressSource, node: &Node, config: &Config, was_failing: bool) -> bool {
    let report = match source.report().await {
        Ok(reports) => reports,
        Err(e) => {
            if !was_failing {
                warn!("the pool stays as it is: {}", with_source(&e));
            }
            return true;
        }
    };
    let chosen = match observe().await {
        Ok(view) => nic::choose(&report, &view, config.nic.as_deref()).map(|(nic, report)| (nic, report.clone(), view)),
        Err(e) => {
            warn!("the pool stays as it is: {}", with_source(&e));
            return true;
        }
    };
    match chosen {
        Ok((nic, report, view)) if nic.index == node.nic.index => {
            let (offered, _) = eligible(&report);
            let mut pool = node.pool();
            apply(&mut pool, &offered);
            reserve_node_addresses(&mut pool, &view);
            if was_failing {
                info!("the source reports again");
            }
            false
        }
        Ok((nic, ..)) => {
            if !was_failing {
                warn!("the pool stays as it is: the source means {} now, not {}", nic.name, node.nic.name);
            }
            true
        }
        Err(e) => {
            if !was_failing {
                warn!("the pool stays as it is: {e}");
            }
            true
        }
    }
}

/// Pods are reached through the node, which must forward for them.
fn ensure_forwarding() -> Result<(), StartError> {
    const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";
    let failed = |source| StartError::Setup { what: "turn on net.ipv4.ip_forward", source };
    if std::fs::read_to_string(SETTING).map_err(failed)?.trim() == "1" {
        return Ok(());
    }
    std::fs::write(SETTING, "1").map_err(failed)?;
    info!("turned on net.ipv4.ip_forward");
    Ok(())
}

/// A place in the range of link indexes that differs from start to start and is behind every link there is.
fn index_seed(view: &NodeView) -> u32 {
    let highest = view.links.iter().map(|link| link.index).filter(|index| LINK_INDICES.contains(index)).max();
    match highest {
        Some(index) => index - LINK_INDICES.start() + 1,
        None => u32::try_from(now().as_nanos() % (1 << 28)).unwrap_or_default(),
    }
}
