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
    /// As well, what Dotfour brings itself: that pods send from addresses that lead back to them, and others' packets are
    /// dropped. So everybody's rules do the same.
    KubeProxyChecked,
}

impl Beside {
    /// Every one, in the order of the tables.
    pub(crate) const ALL: [Beside; 3] = [Beside::Nothing, Beside::KubeProxy, Beside::KubeProxyChecked];

    /// Makes it so in a node's namespace. `checks` says whether whoever wires its pods checks who sends.
    pub(super) fn begin(self, node: &Netns, checks: bool) -> io::Result<()> {
        self.tables(checks).try_for_each(|(_, content)| nft(node, content))
    }

    /// Takes it away again.
    pub(super) fn end(self, node: &Netns, checks: bool) -> io::Result<()> {
        self.tables(checks).try_for_each(|(name, _)| nft(node, &format!("delete table {name}")))
    }

    /// What is put on a node: the tables with their names.
    fn tables(self, checks: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
        let kube_proxy = (self != Beside::Nothing).then_some(("ip kube-proxy", KUBE_PROXY));
        let senders = (self == Beside::KubeProxyChecked && !checks).then_some(("inet senders", SENDERS));
        kube_proxy.into_iter().chain(senders)
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Beside::Nothing => "by themselves",
            Beside::KubeProxy => "beside kube-proxy's rules",
            Beside::KubeProxyChecked => "beside kube-proxy's rules, senders checked",
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

const SENDERS: &str = "
table inet senders {
  chain check {
    type filter hook prerouting priority raw; policy accept;
    iifname \"eth0\" accept
    fib saddr . iif oif missing drop
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
