//! Allocations of an ADD, but for its wiring.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use dotfour_e2e::program::Failure;
use dotfour_ipamd::lease::{Identity, Journal, Ledger};
use dotfour_ipamd::pool::{Assignment, Families, PodAddresses, Pool, PoolAddress, Rest, Wish};
use dotfour_ipamd::verbs::result;
use dotfour_protocol::frame::{decode_request, encode_reply, encode_request};
use dotfour_protocol::{
    Add, Attachment, AttachmentKey, Call, CniVersion, PodAddress, PodName, Reply, Request, ResultFormat, Route,
};
use ipnet::{IpNet, Ipv4Net};

/// Addresses of the pool.
const ADDRESSES: u32 = 256;
/// ADDs before the one that counts, so that tables have grown and the journal is open.
const EARLIER: u32 = 100;

/// How often the heap is asked for memory, new or more.
pub(crate) fn of_add() -> Result<u64, Failure> {
    let directory = tempfile::tempdir_in("/run")?;
    let identity = Identity { boot_id: "boot".to_owned(), machine_id: String::new() };
    let ledger = Ledger::new(pool(), Journal::new(directory.path(), identity));
    for number in 0..EARLIER {
        serve(&ledger, &request(number)?)?;
    }
    let request = request(EARLIER)?;
    let mut outcome = Err("nothing was measured".into());
    let counts = measure(|| outcome = serve(&ledger, &request));
    outcome?;
    Ok(counts.count_total)
}

/// What the daemon does for an ADD without asking the kernel.
fn serve(ledger: &Ledger, message: &[u8]) -> Result<(), Failure> {
    let Call::Add(add) = decode_request(message)?.call else { return Err("not an ADD".into()) };
    let (key, pod) = (Arc::new(add.key), add.pod.map(Arc::new));
    let asked = PodAddresses::default();
    let wish =
        Wish { key: &key, pod, families: Families::V4, asked, started: Duration::from_nanos(1), delegated: false };
    let (assignment, ticket) = ledger.assign(wish, Duration::ZERO);
    ledger.commit(ticket)?;
    let Assignment::New(addresses) = assignment else { return Err(format!("not new: {assignment:?}").into()) };
    let gateway = Ipv4Addr::new(169, 254, 1, 1).into();
    let attachment = Attachment {
        host_ifname: "azv0d7763386da".to_owned(),
        host_mac: "aa:aa:aa:aa:aa:aa".to_owned(),
        pod_mac: "0a:d4:0a:f0:00:05".to_owned(),
        mtu: 1500,
        addresses: addresses.iter().map(|address| PodAddress { address: address.into(), gateway }).collect(),
        routes: vec![
            Route { dst: gateway.into(), gw: None },
            Route { dst: IpNet::V4(Ipv4Net::default()), gw: Some(gateway) },
        ],
    };
    match result::attached(add.print.as_ref(), &key.ifname, &attachment) {
        reply @ Reply::Printed(_) => Ok(encode_reply(&reply).map(|_| ())?),
        other => Err(format!("not printed: {other:?}").into()),
    }
}

/// The message of an ADD, as long as real ones.
fn request(number: u32) -> Result<Vec<u8>, Failure> {
    let key = AttachmentKey {
        network: "azure".to_owned(),
        container_id: format!("{number:064x}"),
        ifname: "eth0".to_owned(),
    };
    let pod = Some(PodName { namespace: "default".to_owned(), name: format!("web-6d4cf56db6-{number:05}") });
    let print = Some(ResultFormat {
        version: CniVersion::V1_1_0,
        sandbox: Some("/var/run/netns/cni-9ad05f28-2a8e-5d7e-4b7d-8a2f1c7b0c11".to_owned()),
    });
    Ok(encode_request(&Request::new(Call::Add(Add { key, pod, started_ns: Some(1), asked: Vec::new(), print })))?)
}

fn pool() -> Pool {
    let first = Ipv4Addr::new(10, 240, 1, 0).to_bits();
    let subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 240, 0, 0), 16).into();
    let address = |bits| PoolAddress { address: Ipv4Addr::from_bits(bits).into(), subnet, nic: 2 };
    let mut pool = Pool::new(Rest { cooldown: Duration::ZERO, floor: Duration::ZERO });
    pool.apply_view(&(first..first + ADDRESSES).map(address).collect::<Vec<_>>());
    pool
}
