//! What else there is on everybody's node while pods talk.

use std::fmt;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use dotfour_datapath::Netns;

/// The companies in which pods talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// What each contestant has brought itself, and nothing more. Without a masquerade rule nothing is tracked.
    Nothing,
    /// The rules for packets that are no service's, as kube-proxy has them on every node of a cluster: connections are tracked,
    /// for all contestants.
    KubeProxy,
}

impl Beside {
    /// Every one, in the order of the tables.
    pub(crate) const ALL: [Beside; 2] = [Beside::Nothing, Beside::KubeProxy];

    /// Makes it so in a node's namespace.
    pub(super) fn begin(self, node: &Netns) -> io::Result<()> {
        match self {
            Beside::Nothing => Ok(()),
            Beside::KubeProxy => nft(node, KUBE_PROXY),
        }
    }

    /// Takes it away again.
    pub(super) fn end(self, node: &Netns) -> io::Result<()> {
        match self {
            Beside::Nothing => Ok(()),
            Beside::KubeProxy => nft(node, "delete table ip kube-proxy"),
        }
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Beside::Nothing => "by themselves",
            Beside::KubeProxy => "beside kube-proxy's rules",
        })
    }
}

const KUBE_PROXY: &str = "
table ip kube-proxy {
  chain forward {
    type filter hook forward priority filter; policy accept;
    ct state invalid drop
    meta mark & 0x4000 == 0x4000 accept
    ct state established,related accept
  }
  chain services { type nat hook prerouting priority dstnat; policy accept; }
  chain masquerading {
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & 0x4000 == 0 return
    masquerade fully-random
  }
}";

fn nft(node: &Netns, rules: &str) -> io::Result<()> {
    let run = || {
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        if let Some(mut input) = nft.stdin.take() {
            input.write_all(rules.as_bytes())?;
        }
        nft.wait()
    };
    match node.run(run)?? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("nft -f -: {status}"))),
    }
}
