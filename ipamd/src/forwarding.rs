//! The node forwards for its pods: the kernel's settings for that.
//!
//! Turning IPv6 forwarding on makes the kernel forget the default route that the NIC learnt from a router advertisement,
//! and ignore further ones, unless the NIC's `accept_ra` says 2. That is one of the exceptions to leaving the NIC
//! alone (ARCHITECTURE.md).

use std::io;

use tracing::info;

use crate::install::settings::Settings;
use crate::pool::Families;

const FORWARDING: &str = "ipv4/ip_forward";
const FORWARDING_V6: &str = "ipv6/conf/all/forwarding";
/// What new links, pods' among them, take over.
const DISABLED_V6: &str = "ipv6/conf/default/disable_ipv6";

/// Why the node does not forward.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// A setting cannot be read.
    #[error("cannot read {setting}")]
    Unreadable {
        /// The setting's path.
        setting: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A setting cannot be written.
    #[error("cannot set {setting} to {wanted}")]
    Refused {
        /// The setting's path.
        setting: String,
        /// What it must be.
        wanted: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel keeps IPv6 off new links.
    #[error(
        "pods are to have IPv6 addresses (ipFamilies), and net.ipv6.conf.default.disable_ipv6 is 1 on this node; set it to \
         0, or ipFamilies to [IPv4]"
    )]
    Ipv6Disabled,
}

/// Turns forwarding on for these families. What is as it should be is not written; what is not is on record with what it
/// was, so that `uninstall` can put it back.
pub fn ensure(families: Families, nic: &str, settings: &Settings) -> Result<(), ForwardingError> {
    // For IPv6 pods too: they may be joined by IPv4 ones without a restart of whatever reads this setting.
    set(settings, FORWARDING, "1")?;
    if !families.v6 {
        return Ok(());
    }
    if read(settings, DISABLED_V6)? == "1" {
        return Err(ForwardingError::Ipv6Disabled);
    }
    let accept_ra = format!("ipv6/conf/{nic}/accept_ra");
    // 0 means that the kernel did not learn the route, and 2 that it keeps it.
    if read(settings, FORWARDING_V6)? == "0" && read(settings, &accept_ra)? == "1" {
        set(settings, &accept_ra, "2")?;
    }
    set(settings, FORWARDING_V6, "1")
}

/// Has the NIC keep its other addresses when one is taken off it, as `reclaimNicAddresses` does: without this, the kernel takes
/// all addresses of a network with the one that came first, and the node's own may have come later.
pub fn promote_secondaries(nic: &str, settings: &Settings) -> Result<(), ForwardingError> {
    set(settings, &format!("ipv4/conf/{nic}/promote_secondaries"), "1")
}

fn read(settings: &Settings, setting: &str) -> Result<String, ForwardingError> {
    settings.get(setting).map_err(|source| ForwardingError::Unreadable { setting: path(settings, setting), source })
}

fn set(settings: &Settings, setting: &str, wanted: &'static str) -> Result<(), ForwardingError> {
    let refused = |source| ForwardingError::Refused { setting: path(settings, setting), wanted, source };
    let changed = settings.set(setting, wanted).map_err(refused)?;
    if let Some(was) = changed {
        info!(was, "net.{} is {wanted} now", setting.replace('/', "."));
    }
    Ok(())
}

fn path(settings: &Settings, setting: &str) -> String {
    settings.path(setting).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_with(values: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (setting, value) in values {
            let path = directory.path().join(setting);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{value}\n")).unwrap();
        }
        directory
    }

    /// Files in place of the kernel's.
    fn settings(directory: &tempfile::TempDir) -> Settings {
        Settings::of(directory.path(), &directory.path().join("state"), "this boot")
    }

    fn node(forwarding_v6: &str, accept_ra: &str, disabled: &str) -> tempfile::TempDir {
        node_with(&[
            (FORWARDING, "0"),
            (FORWARDING_V6, forwarding_v6),
            ("ipv6/conf/eth0/accept_ra", accept_ra),
            (DISABLED_V6, disabled),
        ])
    }

    fn value(directory: &tempfile::TempDir, setting: &str) -> String {
        read(&settings(directory), setting).unwrap()
    }

    #[test]
    fn ipv4_alone_leaves_all_that_is_ipv6_s() {
        let node = node("0", "1", "1");
        ensure(Families::V4, "eth0", &settings(&node)).unwrap();
        assert_eq!(value(&node, FORWARDING), "1");
        assert_eq!(value(&node, FORWARDING_V6), "0");
        assert_eq!(value(&node, "ipv6/conf/eth0/accept_ra"), "1");
    }

    #[test]
    fn the_nic_goes_on_accepting_router_advertisements_if_it_did() {
        for (forwarding, before, after) in [("0", "1", "2"), ("0", "0", "0"), ("0", "2", "2"), ("1", "1", "1")] {
            let node = node(forwarding, before, "0");
            ensure(Families::DUAL, "eth0", &settings(&node)).unwrap();
            assert_eq!(value(&node, "ipv6/conf/eth0/accept_ra"), after, "{forwarding} {before}");
            assert_eq!(value(&node, FORWARDING_V6), "1");
        }
    }

    #[test]
    fn a_node_without_ipv6_is_an_error_that_names_both_ways_out() {
        let e = ensure(Families::DUAL, "eth0", &settings(&node("0", "1", "1"))).unwrap_err().to_string();
        assert!(e.contains("disable_ipv6") && e.contains("ipFamilies"), "{e}");
        let no_such = node_with(&[(FORWARDING, "1")]);
        let e = ensure(Families::DUAL, "eth0", &settings(&no_such)).unwrap_err().to_string();
        assert!(e.contains("cannot read") && e.contains(DISABLED_V6), "{e}");
    }
}
