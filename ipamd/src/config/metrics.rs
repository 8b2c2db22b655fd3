//! Where metrics are served.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where metrics are served. Never on the network: they name no pod, and tell strangers about the node all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsTarget {
    /// Nowhere.
    Off,
    /// On a unix socket with mode 0600, at this absolute path.
    Unix(PathBuf),
    /// On a loopback address.
    Tcp(SocketAddr),
}

impl MetricsTarget {
    /// `off`, `unix:/path`, `127.0.0.1:PORT` or `[::1]:PORT`; without a text, `metrics.sock` in the state directory.
    pub(super) fn parse(text: Option<&str>, state_dir: &Path, daemon_socket: &Path) -> Result<Self, String> {
        let target = match text {
            None => MetricsTarget::Unix(state_dir.join("metrics.sock")),
            Some("off") => MetricsTarget::Off,
            Some(text) => match text.strip_prefix("unix:") {
                Some(path) => MetricsTarget::Unix(super::raw::absolute("metrics", path.into())?),
                None => MetricsTarget::Tcp(loopback(text)?),
            },
        };
        match &target {
            MetricsTarget::Unix(path) if path == daemon_socket => {
                Err(format!("metrics: {} is the socket of the plugin; metrics need one of their own", path.display()))
            }
            _ => Ok(target),
        }
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("metrics: {text:?} is none of unix:/path, 127.0.0.1:PORT, \"[::1]:PORT\" (in quotes) and off")
    })?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "metrics: {address} can be reached from the network; use 127.0.0.1:{port}, \"[::1]:{port}\" or unix:/path",
            port = address.port()
        ));
    }
    if address.port() == 0 {
        return Err("metrics: port 0 is a port that nobody can find; name one".into());
    }
    Ok(address)
}

impl std::fmt::Display for MetricsTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MetricsTarget::Off => f.write_str("off"),
            MetricsTarget::Unix(path) => write!(f, "unix:{}", path.display()),
            MetricsTarget::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn target(line: &str) -> Result<MetricsTarget, String> {
        Config::parse(&format!("{line}\nsource: {{kind: wireserver}}\n")).map(|config| config.metrics)
    }

    #[test]
    fn metrics_are_on_a_unix_socket_in_the_state_directory_unless_told_otherwise() {
        assert_eq!(target("").unwrap(), MetricsTarget::Unix("/run/dotfour/metrics.sock".into()));
        assert_eq!(target("stateDir: /run/two").unwrap(), MetricsTarget::Unix("/run/two/metrics.sock".into()));
        assert_eq!(target("metrics: unix:/run/m.sock").unwrap(), MetricsTarget::Unix("/run/m.sock".into()));
        assert_eq!(target("metrics: off").unwrap(), MetricsTarget::Off);
        assert_eq!(target("metrics: 127.0.0.1:9404").unwrap(), MetricsTarget::Tcp(([127, 0, 0, 1], 9404).into()));
        let six = target("metrics: \"[::1]:9404\"").unwrap();
        assert_eq!(six, MetricsTarget::Tcp("[::1]:9404".parse().unwrap()));
        for text in ["off", "unix:/run/m.sock", "127.0.0.1:9404", "[::1]:9404"] {
            assert_eq!(target(&format!("metrics: \"{text}\"")).unwrap().to_string(), text, "it reads as it is written");
        }
    }

    #[test]
    fn a_place_that_the_network_reaches_or_nobody_finds_is_refused_with_what_to_write_instead() {
        for (value, named) in [
            ("0.0.0.0:9404", "127.0.0.1:9404"),
            ("10.240.0.4:9404", "reached from the network"),
            ("\"[::]:9404\"", "[::1]:9404"),
            ("\"[::ffff:127.0.0.1]:9404\"", "reached from the network"),
            ("localhost:9404", "none of unix:/path"),
            (":9404", "none of unix:/path"),
            ("9404", "metrics"),
            ("[::1]:9404", "string scalar at line 1"),
            ("127.0.0.1", "none of unix:/path"),
            ("127.0.0.1:0", "port 0"),
            ("127.0.0.1:70000", "none of unix:/path"),
            ("unix:metrics.sock", "absolute"),
            ("\"unix:\"", "absolute"),
            ("/run/m.sock", "none of unix:/path"),
            ("\"Off\"", "none of unix:/path"),
            ("unix:/run/dotfour/ipamd.sock", "socket of the plugin"),
        ] {
            let reason = target(&format!("metrics: {value}")).unwrap_err();
            assert!(reason.contains(named), "{value} was refused with {reason:?}");
        }
    }
}
