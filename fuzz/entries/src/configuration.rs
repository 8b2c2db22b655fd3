//! The daemon's configuration.

use std::path::{Component, Path};
use std::time::Duration;

use dotfour_ipamd::config::{Config, Source, StaticSource};
use dotfour_plugin::netconf::NetConf;

/// A configuration that is taken has only values that can be used; one that is not is refused by one sentence.
pub fn configuration(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let config = match Config::parse(text) {
        Ok(config) => config,
        Err(reason) => {
            assert_eq!(reason.lines().count(), 1, "{reason:?}");
            return false;
        }
    };
    for path in [&config.socket, &config.state_dir, &config.spool_dir] {
        assert!(path.is_absolute(), "{}", path.display());
    }
    assert!((1..=255).contains(&config.max_pods));
    assert!(config.rest.floor <= config.rest.cooldown);
    assert!(config.refresh > Duration::ZERO);
    match &config.source {
        Source::Wireserver(source) => assert!(!source.host.is_empty()),
        Source::Static(StaticSource::File(path)) => assert!(path.is_absolute()),
        Source::Static(StaticSource::List { subnets, addresses }) => {
            let mut offered = 0_u32;
            for address in addresses.iter().flat_map(|range| range.iter()) {
                let of = subnets.iter().filter(|subnet| subnet.contains(&address)).count();
                assert_eq!(of, 1, "{address} is of {of} among {subnets:?}");
                offered += 1;
            }
            assert!(offered <= 65_536);
        }
    }
    if !text.contains("spoolDir") {
        same_spool(&config);
    }
    true
}

/// A DEL that finds no daemon is left where the daemon looks: with nothing said of the spool, both derive the same place
/// from the same socket.
fn same_spool(config: &Config) {
    let named = matches!(config.socket.components().next_back(), Some(Component::Normal(_)));
    let Some(socket) = config.socket.to_str().filter(|socket| named && !socket.ends_with(['/', '.'])) else { return };
    let input = serde_json::json!({ "cniVersion": "1.1.0", "name": "azure", "socket": socket }).to_string();
    // A socket's address is shorter than a path may be; the plugin says so.
    if let Ok(plugin) = NetConf::parse(input.as_bytes()) {
        assert_eq!(Path::new(plugin.spool_dir().as_ref()), config.spool_dir);
    }
}
