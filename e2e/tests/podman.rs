//! Containers of a real podman, the other kind of caller: no kubelet, no daemon, and names that are not Kubernetes'.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_e2e::program::{self, Failure, Ground, output, shipped};
use dotfour_e2e::views::no_traces_left;
use dotfour_e2e::{Dump, image, transfer};
use dotfour_ipamd::client;
use dotfour_rig::daemon::socket_path;
use dotfour_rig::probe::Pinger;
use dotfour_rig::{Node, NodeConfig, Vnet, VnetConfig};
use serde_json::json;

type Outcome = Result<(), Failure>;

/// The latest that podman 4.3 and Debian 12's reference plugins know.
const CNI_VERSION: &str = "1.0.0";
/// Everything of podman's: in the sandbox's own `/run`.
const PLACE: &str = "/run/dotfour-e2e-podman";
const HOST_PORT: u16 = 8080;
const POD_PORT: u16 = 80;
/// How long anything may take that is to happen.
const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    program::run(|ground| {
        let ground = ground.clone();
        let name = "containers_of_podman_get_addresses_of_the_nic_and_ports_of_the_node_and_leave_nothing";
        vec![program::test(name, move || containers(&ground))]
    })
}

fn containers(ground: &Ground) -> Outcome {
    let vnet =
        Vnet::build(VnetConfig { subnet: "10.240.0.0/16".parse()?, place: ground.sandbox.place().within("vnet")? })?;
    let node = vnet.add_node(&NodeConfig::new("node-1", 8))?;
    let other = vnet.add_node(&NodeConfig::new("node-2", 0))?;
    let daemon = node.start_daemon(&program::daemon()?)?;
    let podman = Podman::prepare(ground, &node)?;
    let outcome = lives(&podman, &vnet, &node, &other);
    outcome.map_err(|e| format!("{e}\n  the daemon's log ends:\n{}", daemon.log_tail()).into())
}

fn lives(podman: &Podman<'_>, vnet: &Vnet, node: &Node, other: &Node) -> Outcome {
    // portmap never removes its chains for all pods, so they have to be there before.
    podman.start("warm", Some(9_000))?;
    podman.call(&["rm", "--force", "--time", "0", "warm"])?;
    is_buried(vnet, node)?;
    let before = Dump::of(node.netns())?;

    let (web, client) = (podman.start("web", Some(HOST_PORT))?, podman.start("client", None)?);
    let on_nic = vnet.addresses(node)?;
    for container in [&web, &client] {
        let address = container.address;
        assert!(on_nic.iter().skip(1).any(|other| *other == address), "{address} is not one of {on_nic:?}");
        let reply = Pinger::open(other.netns())?.ping(address, SOON)?;
        assert!(reply.is_some(), "{address} does not answer the other node");
    }
    assert_ne!(web.address, client.address);
    // podman passes a name without a namespace of Kubernetes': that is no pod's.
    let said = client::status(&socket_path(node))?;
    let known: Vec<_> = said.attachments.iter().map(|lease| (lease.key.container_id.as_str(), &lease.pod)).collect();
    assert_eq!(known.len(), 2, "{known:?}");
    for id in [&web.id, &client.id] {
        assert!(known.contains(&(id.as_str(), &None)), "{id} is not in {known:?}");
    }
    let port = SocketAddr::from((node.address(), HOST_PORT));
    for (from, seen) in [(other.netns(), other.address()), (&client.netns, client.address)] {
        let sent = transfer::send((from, port), (&web.netns, POD_PORT), 1_000, SOON)?;
        assert_eq!(sent.seen, IpAddr::V4(seen), "the container must see who asks");
    }

    // A restart is DEL and ADD of the same id.
    podman.call(&["restart", "--time", "0", "web"])?;
    let again = podman.look("web")?;
    assert_eq!(again.id, web.id);
    transfer::send((other.netns(), port), (&again.netns, POD_PORT), 1_000, SOON)?;

    podman.call(&["rm", "--force", "--time", "0", "web", "client"])?;
    is_buried(vnet, node)?;
    let difference = before.difference(&Dump::of(node.netns())?);
    if difference.is_empty() { Ok(()) } else { Err(format!("podman left:\n  {}", difference.join("\n  ")).into()) }
}

/// A container that runs.
struct Container {
    id: String,
    address: Ipv4Addr,
    netns: Netns,
}

/// podman on a node.
struct Podman<'a> {
    node: &'a Node,
    cgroup: String,
}

impl<'a> Podman<'a> {
    fn prepare(ground: &Ground, node: &'a Node) -> Result<Self, Failure> {
        let place = Path::new(PLACE);
        // libcni keeps results in /var/lib/cni, whatever podman's configuration says. Mounts are the sandbox's own.
        output(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "dotfour-e2e", "/var/lib"]))?;
        let (plugins, networks) = (place.join("plugins"), place.join("networks"));
        for directory in [&plugins, &networks] {
            fs::create_dir_all(directory)?;
        }
        for (name, file) in
            [("dotfour", shipped("dotfour")?), ("portmap", Path::new(program::REFERENCE_PLUGINS).join("portmap"))]
        {
            std::os::unix::fs::symlink(file, plugins.join(name))?;
        }
        let list = json!({ "cniVersion": CNI_VERSION, "name": "azure", "plugins": [
            { "type": "dotfour", "socket": socket_path(node) },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ]});
        fs::write(networks.join("10-azure.conflist"), list.to_string())?;
        fs::write(place.join("containers.conf"), configuration(&plugins, &networks))?;
        let busybox = which("busybox")?;
        image::unpack(&place.join("root"), &busybox)?;
        Ok(Podman { node, cgroup: format!("/{}", ground.cgroup) })
    }

    /// Runs a container that sleeps, with a port of the node that leads to it.
    fn start(&self, name: &str, port: Option<u16>) -> Result<Container, Failure> {
        let root = format!("{PLACE}/root");
        let publish = port.map(|port| format!("{port}:{POD_PORT}"));
        let mut arguments =
            vec!["run", "--detach", "--name", name, "--network", "azure", "--cgroup-parent", &self.cgroup];
        // Lowering it is refused on many virtual machines, and runc fails then.
        arguments.extend(["--oom-score-adj", "0"]);
        if let Some(publish) = &publish {
            arguments.extend(["--publish", publish]);
        }
        arguments.extend(["--rootfs", &root, "/busybox", "sleep", "1000"]);
        self.call(&arguments)?;
        self.look(name)
    }

    fn look(&self, name: &str) -> Result<Container, Failure> {
        let format = "{{.Id}} {{.NetworkSettings.Networks.azure.IPAddress}} {{.NetworkSettings.SandboxKey}}";
        let said = self.call(&["inspect", "--format", format, name])?;
        let words: Vec<&str> = said.split_whitespace().collect();
        let [id, address, netns] = words[..] else { return Err(format!("podman inspect says {said:?}").into()) };
        Ok(Container { id: id.to_owned(), address: address.parse()?, netns: Netns::open(Path::new(netns))? })
    }

    /// Runs podman in the node's namespace.
    fn call(&self, arguments: &[&str]) -> Result<String, Failure> {
        let place = |name: &str| format!("{PLACE}/{name}");
        let mut command = Command::new(which("podman")?);
        command.env("CONTAINERS_CONF", place("containers.conf")).env("HOME", place("home"));
        command.args(["--storage-driver", "vfs", "--log-level", "error"]);
        command.args(["--root", &place("storage"), "--runroot", &place("run"), "--tmpdir", &place("tmp")]);
        command.args(arguments);
        self.node.netns().run(|| output(&mut command))?
    }
}

fn configuration(plugins: &Path, networks: &Path) -> String {
    format!(
        r#"[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"

[network]
network_backend = "cni"
cni_plugin_dirs = ["{}"]
network_config_dir = "{}"
default_network = "azure"
"#,
        plugins.display(),
        networks.display()
    )
}

fn is_buried(vnet: &Vnet, node: &Node) -> Outcome {
    no_traces_left(SOON, vnet, node)
}

fn which(name: &str) -> Result<PathBuf, Failure> {
    program::on_path(name)
        .ok_or_else(|| format!("the program {name} is not on this machine; `make deps` installs it").into())
}
