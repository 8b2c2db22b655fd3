//! What a container runtime passes to the plugin: standard input and the environment.
//!
//! The plugin runs as it does on a node, with one difference: it never gets as far as a daemon or a spool, because where
//! they would be is under /proc, where nobody can make anything.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use dotfour_ipamd::pool::PodAddresses;
use dotfour_ipamd::verbs::result as daemon;
use dotfour_ipamd::wiring::tag::Tag;
use dotfour_plugin::environment::{Command, Environment};
use dotfour_plugin::netconf::{NetConf, version_of};
use dotfour_plugin::result;
use dotfour_plugin::role::Role;
use dotfour_protocol::frame::{decode_request, encode_request};
use dotfour_protocol::{
    Add, Assigned, Attachment, AttachmentKey, Call, CniVersion, DEFAULT_SOCKET, Reply, Request, ResultFormat,
};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

const SOCKET: &str = "/proc/nowhere/socket";
const SPOOL: &str = "/proc/nowhere/spool";
const NAMESPACE: &str = "/proc/nowhere/netns";

/// Network configurations. Whatever comes in, the exit status is 0 or 1 and one JSON object goes out, which after a
/// failure is an error object; and what is taken means what another reader of JSON says it means.
pub fn plugin_stdin(data: &[u8]) -> bool {
    // Of more, the plugin reads the beginning and says so.
    if data.len() > 1024 * 1024 {
        return false;
    }
    let (status, printed) = execute(&[(b"CNI_COMMAND", b"VERSION")], data);
    if status == 0 {
        let asked: Value = object(&printed);
        assert!(
            asked.get("cniVersion").is_some_and(Value::is_string)
                && asked.get("supportedVersions").is_some_and(Value::is_array),
            "{asked}"
        );
    } else {
        assert_eq!(error(status, &printed), 6);
    }

    let config = NetConf::parse(data);
    let (status, printed) = execute(&variables(b"ADD"), data);
    let code = error(status, &printed);
    match &config {
        // The namespace is looked at last, and there is none. Only ADD asks for addresses.
        Ok(config) => {
            assert_eq!(code, config.asked().map_or_else(|failure| failure.code, |_| 4));
            usable(config, data);
        }
        Err(failure) => assert_eq!(code, failure.code),
    }
    delegating(data);
    if config.as_ref().is_ok_and(|config| config.socket == SOCKET && config.spool_dir() == SPOOL) {
        let (status, printed) = execute(&variables(b"DEL"), data);
        assert_eq!(error(status, &printed), 11);
    }
    config.is_ok()
}

/// The same for `dotfour-ipam`, which finds its socket and spool inside `ipam`, and nothing but what is usable.
fn delegating(data: &[u8]) {
    let Ok(config) = NetConf::parse_as(Role::Ipam, data) else { return };
    let NetConf { version, socket, dns, .. } = &config;
    assert!(socket.starts_with('/') && socket.len() < 108 && !socket.contains('\0'), "{socket:?}");
    assert!(config.spool_dir().starts_with('/') && !config.spool_dir().contains('\0'), "{}", config.spool_dir());
    if let Ok(written) = serde_json::from_slice::<Value>(data) {
        let ipam = written.get("ipam").filter(|ipam| ipam.is_object()).expect("taken without an ipam");
        assert_eq!(ipam.get("socket").and_then(Value::as_str).unwrap_or(DEFAULT_SOCKET), socket);
    }
    let format = ResultFormat { version: *version, sandbox: None };
    let printed = printed(daemon::assigned(Some(&format), Assigned { addresses: Vec::new() }), *dns);
    assert!(object::<Value>(&printed).get("interfaces").is_none());
}

/// What the plugin prints when the daemon answers so.
fn printed(reply: Reply, dns: Option<&str>) -> Vec<u8> {
    let printed = if let Reply::Printed(result) = reply { Some(result.into_bytes()) } else { None };
    result::with_dns(printed.expect("a result"), dns)
}

/// Environments, as /proc/PID/environ has them: `NAME=value`, each ended by a zero byte. The exit status is 0 or 1, and
/// what goes out is nothing or one JSON object; what is taken fits into a link's name and alias and into a message.
pub fn plugin_environment(data: &[u8]) -> bool {
    let mut variables: Vec<(&[u8], &[u8])> = data
        .split(|byte| *byte == 0)
        .map(|pair| match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
            None => (pair, Default::default()),
        })
        .collect();
    let environment = Environment::collect(variables.iter().copied());
    let taken = environment.for_add();
    if let Ok(add) = &taken {
        let key =
            AttachmentKey { network: "azure".into(), container_id: add.container_id.into(), ifname: add.ifname.into() };
        assert!(!key.container_id.is_empty() && key.container_id.is_ascii(), "{key}");
        assert!((1..=15).contains(&key.ifname.len()) && !key.ifname.contains(['/', ':', '%', ' ', '\n']), "{key}");
        let tag = Tag { key: Arc::new(key.clone()), addresses: PodAddresses::from(IpAddr::from([10, 240, 0, 5])) };
        assert_eq!(tag.to_string().parse(), Ok(tag));
        let print = Some(ResultFormat { version: CniVersion::NEWEST, sandbox: Some(add.netns.into()) });
        let (pod, started_ns) = (add.pod.clone(), Some(1));
        let request = Request::new(Call::Add(Add { key, pod, started_ns, asked: vec![], print }));
        if let Ok(bytes) = encode_request(&request) {
            assert_eq!(decode_request(&bytes), Ok(request));
        }
        let del = environment.for_del().map(|del| (del.container_id, del.ifname));
        assert_eq!(del, Ok((add.container_id, add.ifname)));
    }
    // A path made up by chance is better not opened.
    for (_, path) in variables.iter_mut().filter(|(name, path)| *name == b"CNI_NETNS" && is_text(path)) {
        *path = b"/proc/self/ns/net";
    }
    let (status, printed) = execute(&variables, CONFIG.as_bytes());
    if status == 0 {
        assert!(printed.is_empty() || object::<Value>(&printed).is_object());
    } else {
        let code = error(status, &printed);
        let no_daemon = taken.is_ok() && matches!(environment.command(), Ok(Command::Add | Command::Del));
        assert!(!no_daemon || code == 11, "{code}");
    }
    taken.is_ok()
}

fn is_text(value: &[u8]) -> bool {
    !value.is_empty() && std::str::from_utf8(value).is_ok()
}

const CONFIG: &str = r#"{"cniVersion":"1.1.0","name":"azure","type":"dotfour","socket":"/proc/nowhere/socket"}"#;

/// An environment that nothing is wrong with but its namespace.
fn variables(command: &'static [u8]) -> [(&'static [u8], &'static [u8]); 4] {
    [
        (b"CNI_COMMAND", command),
        (b"CNI_CONTAINERID", b"c0ffee"),
        (b"CNI_IFNAME", b"eth0"),
        (b"CNI_NETNS", NAMESPACE.as_bytes()),
    ]
}

/// Runs the plugin: its exit status, and its standard output.
fn execute(variables: &[(&[u8], &[u8])], input: &[u8]) -> (i32, Vec<u8>) {
    let mut stdin = memory();
    stdin.write_all(input).and_then(|()| stdin.rewind()).expect("memory can be written");
    let mut stdout = memory();
    let status = dotfour_plugin::run(b"dotfour", variables.iter().copied(), stdin.as_fd(), stdout.as_fd(), 1);
    let mut printed = Vec::new();
    stdout.rewind().and_then(|()| stdout.read_to_end(&mut printed)).expect("memory can be read");
    (status, printed)
}

/// A file in memory.
fn memory() -> File {
    memfd_create("dotfour-fuzz", MemfdFlags::CLOEXEC).expect("a file in memory").into()
}

/// Reads exactly one JSON object.
fn object<'a, T: Deserialize<'a>>(printed: &'a [u8]) -> T {
    assert!(printed.starts_with(b"{"), "{}", printed.escape_ascii());
    serde_json::from_slice(printed).expect("one JSON object")
}

/// The error object's code (SPEC.md 1.1.0, "Error"), after a look at the rest of it.
fn error(status: i32, printed: &[u8]) -> u32 {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct ErrorObject {
        cni_version: String,
        code: u32,
        msg: String,
        details: String,
    }
    assert_eq!(status, 1);
    let ErrorObject { cni_version, code, msg, details } = object(printed);
    assert!(CniVersion::from_name(&cni_version).is_some(), "{cni_version:?}");
    assert!(code > 0 && !msg.is_empty() && !details.is_empty(), "{code} {msg:?} {details:?}");
    code
}

/// A configuration that is taken: its values can be used, and they are the ones that are written.
fn usable(config: &NetConf<'_>, data: &[u8]) {
    let NetConf { version, name, socket, dns, .. } = config;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    assert!(!name.is_empty() && name.bytes().all(allowed), "{name:?}");
    assert!(socket.starts_with('/') && socket.len() < 108 && !socket.contains('\0'), "{socket:?}");
    assert!(config.spool_dir().starts_with('/') && !config.spool_dir().contains('\0'), "{}", config.spool_dir());
    assert_eq!(version_of(data), *version);

    // It passes by what it does not act on, so it takes texts that this reader finds too deep or not to be Unicode.
    if let Ok(written) = serde_json::from_slice::<Value>(data) {
        let text = |member| written.get(member).and_then(Value::as_str);
        assert_eq!(text("cniVersion"), Some(version.name()));
        assert_eq!(text("name"), Some(name.as_ref()));
        assert_eq!(text("socket").unwrap_or(DEFAULT_SOCKET), socket);
    }

    #[derive(Deserialize)]
    struct AddResult<'a> {
        #[serde(borrow)]
        dns: &'a RawValue,
    }
    let format = ResultFormat { version: *version, sandbox: Some("/run/netns/pod".into()) };
    let printed = printed(daemon::attached(Some(&format), "eth0", &attachment()), *dns);
    let result: AddResult<'_> = object(&printed);
    assert_eq!(result.dns.get(), dns.unwrap_or("{}"));
}

fn attachment() -> Attachment {
    Attachment {
        host_ifname: "azv1".into(),
        host_mac: "aa:aa:aa:aa:aa:aa".into(),
        pod_mac: "0a:d4:0a:f0:00:05".into(),
        mtu: 1500,
        addresses: Vec::new(),
        routes: Vec::new(),
    }
}
