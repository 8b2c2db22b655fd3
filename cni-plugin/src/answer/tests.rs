use dotfour_protocol::{Reply, frame};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ATTACHED: &str = r#"{"attached":{"host_ifname":"azv1","host_mac":"aa:aa:aa:aa:aa:aa","pod_mac":"0a:58:0a:f0:04:04",
    "mtu":1500,"addresses":[{"address":"10.240.4.4/32","gateway":"169.254.1.1"}],"routes":[]}}"#;

fn address() -> impl Strategy<Value = PodAddress> {
    let v4 = (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(ip, prefix)| (ip.into(), prefix));
    let v6 = (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(ip, prefix)| (ip.into(), prefix));
    prop_oneof![v4, v6].prop_map(|(ip, prefix): (core::net::IpAddr, u8)| PodAddress {
        address: ipnet::IpNet::new(ip, prefix).unwrap(),
        gateway: ip,
    })
}

fn route() -> impl Strategy<Value = Route> {
    (address(), any::<bool>()).prop_map(|(to, direct)| Route { dst: to.address, gw: (!direct).then_some(to.gateway) })
}

fn reply() -> impl Strategy<Value = Reply> {
    let attached = (".*", ".*", ".*", any::<u32>(), vec(address(), 1..4), vec(route(), 0..4)).prop_map(
        |(host_ifname, host_mac, pod_mac, mtu, addresses, routes)| {
            Reply::Attached(Attachment { host_ifname, host_mac, pod_mac, mtu, addresses, routes })
        },
    );
    let failed = (any::<u32>(), ".*", ".*", ".*")
        .prop_map(|(code, cause, message, next_step)| Reply::Failed(Failure { code, cause, message, next_step }));
    let assigned = vec(address(), 1..4).prop_map(|addresses| Reply::Assigned(Assigned { addresses }));
    prop_oneof![
        attached,
        assigned,
        failed,
        Just(Reply::Detached),
        Just(Reply::Checked),
        Just(Reply::Collected),
        Just(Reply::Ready)
    ]
}

proptest! {
    #[test]
    fn what_the_daemon_writes_is_read(reply in reply()) {
        let answer = Answer::read(&frame::encode_reply(&reply).unwrap()).unwrap();
        prop_assert_eq!(answer, match reply {
            Reply::Attached(attachment) => Answer::Attached(attachment),
            Reply::Assigned(assigned) => Answer::Assigned(assigned),
            Reply::Failed(failure) => Answer::Failed(failure),
            Reply::Detached => Answer::Detached,
            Reply::Checked => Answer::Checked,
            Reply::Collected => Answer::Collected,
            Reply::Ready => Answer::Ready,
            Reply::Status(_) => unreachable!("not made above"),
        });
    }

    #[test]
    fn what_is_taken_the_protocol_would_take_as_well(
        at in 0..ATTACHED.len(), length in 0..8_usize, with in "[\"{}0-9a-z.:/,]{0,4}",
    ) {
        let mut text = ATTACHED.to_owned();
        text.replace_range(at..(at + length).min(ATTACHED.len()), &with);
        if Answer::read(text.as_bytes()).is_ok() {
            // The derived reader refuses what comes twice; only a mutation makes that.
            let read = frame::decode_reply(text.as_bytes());
            let twice = |failure: &Failure| failure.message.contains("duplicate field");
            prop_assert!(read.is_ok() || read.as_ref().is_err_and(twice), "{:?} of {}", read, text);
        }
    }
}

#[test]
fn members_of_a_later_version_are_passed_by() {
    let later =
        ATTACHED.replace("\"mtu\"", "\"queues\":{\"n\":4},\"mtu\"").replace("{\"attached", "{\"since\":2,\"attached");
    assert_eq!(Answer::read(later.as_bytes()), Answer::read(ATTACHED.as_bytes()));
    assert!(matches!(Answer::read(ATTACHED.as_bytes()), Ok(Answer::Attached(_))));
}

#[test]
fn what_is_no_answer_is_refused_and_named() {
    for (reply, says) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("null", "invalid type"),
        ("\"attached\"", "invalid type"),
        ("{}", "it has no attached, assigned or failed"),
        (r#"{"assigned":{}}"#, "it has no addresses"),
        (r#"{"assigned":{"addresses":[{"address":"10.240.4.4/16"}]}}"#, "it has no gateway"),
        (r#"{"attached":7}"#, "attached must be an object"),
        (r#"{"attached":{}}"#, "it has no host_ifname"),
        (r#"{"failed":{"code":7}}"#, "it has no cause"),
        (r#"{"failed":{"code":"7"}}"#, "code must be a whole number"),
    ] {
        let fault = Answer::read(reply.as_bytes()).unwrap_err();
        assert!(fault.contains(says), "{reply}: {fault}");
    }
    for (from, to, says) in [
        ("1500", "-1", "mtu must be a whole number"),
        ("1500", "1500.5", "mtu must be a whole number"),
        ("10.240.4.4/32", "10.240.4.4", "address must be an address with its prefix length"),
        ("10.240.4.4/32", "10.240.4.4/33", "address must be an address with its prefix length"),
        ("\"169.254.1.1\"", "[]", "gateway must be a string"),
        ("\"azv1\"", "null", "it has no host_ifname"),
        ("[]", "{}", "routes must be an array"),
        ("[]", "[7]", "routes must be an object"),
    ] {
        let fault = Answer::read(ATTACHED.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(fault, says);
    }
}

#[test]
fn a_reply_to_somebody_else_is_refused() {
    assert!(Answer::read(br#"{"status":{"version":"1"}}"#).is_err());
}
