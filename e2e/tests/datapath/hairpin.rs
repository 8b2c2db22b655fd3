//! A pod that asks a service whose only answer is itself, by the rules that kube-proxy makes, with iptables and with
//! nftables.
//!
//! Such a packet must get another source on its way, or the pod would take its own address for a stranger's forgery: that is
//! why kube-proxy marks it for masquerade. Without that rule nothing comes, with any plugin that routes; the last case here
//! says so.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dotfour_e2e::inside::{feed, nft};
use dotfour_e2e::program::Failure;
use dotfour_e2e::transfer;
use dotfour_rig::{NodeConfig, Place, Pod, Vnet, VnetConfig};

use crate::{Filter, Host};

/// A service's address and port; the pod's port.
const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 10), 80);
const POD_PORT: u16 = 8080;
/// How long a connection may take that is to be made, and how long one is tried that is not.
const SOON: Duration = Duration::from_secs(5);
const UNANSWERED: Duration = Duration::from_millis(500);

/// Who makes the service.
#[derive(Debug, Clone, Copy)]
enum By {
    Iptables,
    Nftables,
}

impl By {
    /// Makes the service lead to one pod, or to nobody.
    fn lead(self, host: &Host, pod: Option<Ipv4Addr>, masquerade: bool) -> Result<(), Failure> {
        let (service, port) = SERVICE;
        let node = host.node.netns();
        match (self, pod) {
            (By::Iptables, Some(pod)) => {
                let mark =
                    if masquerade { format!("-A KUBE-SEP -s {pod}/32 -j KUBE-MARK-MASQ\n") } else { String::new() };
                let rules = format!(
                    "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SEP - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n\
                     -A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n\
                     -A KUBE-SERVICES -d {service}/32 -p tcp -m tcp --dport {port} -j KUBE-SEP\n{mark}\
                     -A KUBE-SEP -p tcp -m tcp -j DNAT --to-destination {pod}:{POD_PORT}\n\
                     -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
                     -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
                     -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
                     -A KUBE-POSTROUTING -j MASQUERADE --random-fully\nCOMMIT\n"
                );
                feed(node, &["iptables-restore"], &rules).map(drop)
            }
            (By::Iptables, None) => feed(node, &["iptables-restore"], "*nat\nCOMMIT\n").map(drop),
            (By::Nftables, Some(pod)) => {
                let mark =
                    if masquerade { format!("ip saddr {pod} meta mark set mark or 0x4000;") } else { String::new() };
                nft(
                    node,
                    &format!(
                        "table ip kube-proxy {{
                           chain services {{ type nat hook prerouting priority dstnat;
                             ip daddr {service} tcp dport {port} jump endpoint; }}
                           chain endpoint {{ {mark} tcp dport {port} dnat to {pod}:{POD_PORT}; }}
                           chain masquerading {{ type nat hook postrouting priority srcnat;
                             mark and 0x4000 == 0 return; meta mark set mark xor 0x4000; masquerade fully-random; }}
                         }}"
                    ),
                )
            }
            (By::Nftables, None) => nft(node, "delete table ip kube-proxy"),
        }
    }
}

pub(crate) fn reaches_itself(place: &Place) -> Result<(), Failure> {
    let vnet = Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: place.clone() })?;
    let host = Host::start(vnet.add_node(&NodeConfig::new("node-1", 16))?)?;
    for value in 0..=2 {
        // Before the pods, whose links inherit it.
        Filter::All.set(host.node.netns(), value)?;
        let pod = Pod::create(&host.node, "default", "web")?;
        let address = host.runtime().add(&pod)?.ipv4().ok_or("no address")?;
        let other = Pod::create(&host.node, "default", "client")?;
        host.runtime().add(&other)?;
        for by in [By::Iptables, By::Nftables] {
            let ask = |from: &Pod, patience| {
                transfer::send((from.netns(), SocketAddr::from(SERVICE)), (pod.netns(), POD_PORT), 100_000, patience)
            };
            by.lead(&host, Some(address), true)?;
            let itself = ask(&pod, SOON).map_err(|e| format!("{by:?}, rp_filter {value}, from itself: {e}"))?;
            assert_eq!(itself.seen, IpAddr::V4(host.node.address()), "{by:?}: the pod sees the node");
            let neighbour = ask(&other, SOON).map_err(|e| format!("{by:?}, rp_filter {value}, from a pod: {e}"))?;
            assert_ne!(neighbour.seen, IpAddr::V4(host.node.address()), "{by:?}: the pod sees the other pod");
            by.lead(&host, None, true)?;
            by.lead(&host, Some(address), false)?;
            let unmasked = ask(&pod, UNANSWERED);
            let unmasked = unmasked.err().map(|e| e.kind());
            assert_eq!(unmasked, Some(ErrorKind::TimedOut), "{by:?}: not masqueraded, and not without an answer");
            by.lead(&host, None, false)?;
        }
        host.runtime().del(&pod, None)?;
        host.runtime().del(&other, None)?;
    }
    Ok(())
}
