//! The network configuration on standard input, read and checked.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::net::IpAddr;

use dotfour_protocol::{Cause, CniVersion, DEFAULT_SOCKET, Failure, SPOOL_NAME, ValidAttachment};
use ipnet::IpNet;

use crate::asked::Asked;
use crate::members::{Each, Value, members, trimmed};
use crate::quoted::Quoted;
use crate::role::Role;

/// The longest path in the address of a unix socket, in bytes: `sun_path` has 108, one of which ends it.
const MAX_SOCKET: usize = 107;

/// A network configuration, as far as the plugin acts on it. Whatever else it holds is for others.
#[derive(Debug, Clone)]
pub struct NetConf<'a> {
    /// The format the result must have.
    pub version: CniVersion,
    /// The network's name, which is part of every attachment's key.
    pub name: Cow<'a, str>,
    /// Path of the daemon's socket; absolute, and short enough for a socket's address.
    pub socket: Cow<'a, str>,
    /// Path of the spool directory, if it is not the one beside the socket; absolute.
    pub spool: Option<Cow<'a, str>>,
    /// The object that goes into the result as it is.
    pub dns: Option<&'a str>,
    /// `runtimeConfig` and `args`. Only ADD looks into them: no fault of theirs may keep a DEL from its work.
    wishes: [Option<&'a str>; 2],
    /// `prevResult`, for CHECK.
    previous: Option<&'a str>,
    /// `cni.dev/valid-attachments`, for GC.
    valid: Option<&'a str>,
}

impl<'a> NetConf<'a> {
    /// Reads a network configuration, as `dotfour` does.
    ///
    /// # Errors
    /// `invalid-json` if it is not JSON or a member has the wrong type, `incompatible-cni-version`, and
    /// `invalid-network-config` if a value is missing or cannot be used.
    pub fn parse(input: &'a [u8]) -> Result<Self, Failure> {
        Self::parse_as(Role::Main, input)
    }

    /// Reads a network configuration. For `dotfour-ipam` it is that of the delegating plugin, in which `socket` and
    /// `spoolDir` stand inside `ipam`; outside of it, they are the other plugin's.
    ///
    /// # Errors
    /// As [`NetConf::parse`], and `invalid-network-config` if `dotfour-ipam` is not named as the `ipam.type`.
    pub fn parse_as(role: Role, input: &'a [u8]) -> Result<Self, Failure> {
        let mut conf = Members { role, ..Members::default() };
        members(input, &mut |member| conf.take(member)).map_err(invalid_json)?;
        let Members { version, name, socket, spool, dns, wishes, previous, valid, has_ipam, .. } = conf;
        if role == Role::Ipam && !has_ipam {
            return Err(invalid(String::from(
                "dotfour-ipam serves plugins that have it as the type in their ipam, and there is no ipam",
            )));
        }
        let version = CniVersion::from_name(version.as_deref().unwrap_or(CniVersion::UNNAMED))
            .ok_or_else(|| incompatible(version.as_deref()))?;
        let name = name.unwrap_or_default();
        if !is_identifier(&name) {
            return Err(invalid(format!(
                "name {} must begin with a letter or digit and go on with letters, digits, '_', '.' or '-'",
                Quoted(&name)
            )));
        }
        let socket = socket.unwrap_or(Cow::Borrowed(DEFAULT_SOCKET));
        if !socket.starts_with('/') || socket.len() > MAX_SOCKET || socket.contains('\0') {
            return Err(invalid(format!(
                "socket {} must be an absolute path of at most {MAX_SOCKET} bytes, and has {}",
                Quoted(&socket),
                socket.len()
            )));
        }
        if let Some(spool) = &spool
            && (!spool.starts_with('/') || spool.contains('\0'))
        {
            return Err(invalid(format!("spoolDir {} must be an absolute path", Quoted(spool))));
        }
        Ok(NetConf { version, name, socket, spool, dns, wishes, previous, valid })
    }

    /// The addresses in `prevResult`, which CHECK must have.
    ///
    /// # Errors
    /// `invalid-network-config` if there is no `prevResult`, or it is none.
    pub fn previous_addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let Some(previous) = self.previous.filter(|raw| *raw != "null") else {
            return Err(invalid(String::from("CHECK needs prevResult, the result of the ADD")));
        };
        let mut addresses = Vec::new();
        let mut take = |ip: Value<'_, 'a>| match ip.name {
            "address" => match ip.parsed::<IpNet>("an address with its prefix length")? {
                Some(net) => {
                    addresses.push(net.addr());
                    Ok(())
                }
                None => Ok(()),
            },
            _ => Ok(()),
        };
        named("prevResult", Some(previous), &mut |member| match member.name {
            "ips" => member.elements(&mut |ip| ip.members(&mut take)),
            _ => Ok(()),
        })
        .map_err(invalid)?;
        Ok(addresses)
    }

    /// The attachments that GC must spare (SPEC.md 1.1.0, "GC").
    ///
    /// # Errors
    /// `invalid-network-config` if there is no list, or an entry lacks a part: then nobody knows what may be removed.
    pub fn valid_attachments(&self) -> Result<Vec<ValidAttachment>, Failure> {
        const NAME: &str = "cni.dev/valid-attachments";
        let Some(valid) = self.valid else {
            return Err(invalid(format!("GC needs {NAME}, the list of what must stay; nothing is removed")));
        };
        // So Go writes an empty list: CRI-O's for a network that has no pods. libcni leaves a list that nobody has made out.
        if valid == "null" {
            return Ok(Vec::new());
        }
        let mut attachments = Vec::new();
        let mut take = |entry: Value<'_, 'a>| {
            let (mut container_id, mut ifname) = (None, None);
            entry.members(&mut |member| {
                match member.name {
                    "containerID" => container_id = member.text()?,
                    "ifname" => ifname = member.text()?,
                    _ => {}
                }
                Ok(())
            })?;
            let (Some(container_id), Some(ifname)) = (container_id, ifname) else {
                return Err(format!("{NAME} has an entry without containerID or ifname; nothing is removed"));
            };
            attachments.push(ValidAttachment { container_id: container_id.into_owned(), ifname: ifname.into_owned() });
            Ok(())
        };
        Value { name: NAME, raw: valid }.elements(&mut take).map_err(invalid)?;
        Ok(attachments)
    }

    /// The addresses that the configuration asks for: `runtimeConfig.ips` and `args.cni.ips`.
    ///
    /// # Errors
    /// `invalid-network-config` if they are no list of addresses, or two of one family.
    pub fn asked(&self) -> Result<Asked, Failure> {
        let mut asked = Asked::default();
        let [runtime_config, args] = self.wishes;
        let mut ips = |inside: Value<'_, 'a>, place: &str| match inside.name {
            "ips" => inside.elements(&mut |ip| match ip.text()? {
                Some(text) => asked.push(&text).map_err(|fault| format!("{place} {fault}")),
                None => Ok(()),
            }),
            _ => Ok(()),
        };
        named("runtimeConfig", runtime_config, &mut |inside| ips(inside, "runtimeConfig.ips"))
            .and_then(|()| {
                named("args", args, &mut |args| match args.name {
                    "cni" => args.members(&mut |inside| ips(inside, "args.cni.ips")),
                    _ => Ok(()),
                })
            })
            .map_err(invalid)?;
        Ok(asked)
    }

    /// Where a DEL goes that finds no daemon: the directory configured, or the one beside the socket, as the daemon
    /// has it.
    pub fn spool_dir(&self) -> Cow<'_, str> {
        match &self.spool {
            Some(spool) => Cow::Borrowed(spool),
            None => {
                let beside = self.socket.rsplit_once('/').map_or("", |(directory, _)| directory);
                Cow::Owned(format!("{beside}/{SPOOL_NAME}"))
            }
        }
    }
}

/// The members that count, by type; their values have not been looked at.
#[derive(Default)]
struct Members<'a> {
    role: Role,
    has_ipam: bool,
    version: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    socket: Option<Cow<'a, str>>,
    spool: Option<Cow<'a, str>>,
    dns: Option<&'a str>,
    wishes: [Option<&'a str>; 2],
    previous: Option<&'a str>,
    valid: Option<&'a str>,
}

impl<'a> Members<'a> {
    fn take(&mut self, member: Value<'_, 'a>) -> Result<(), String> {
        match member.name {
            "cniVersion" => self.version = member.text()?,
            "name" => self.name = member.text()?,
            "ipam" if self.role == Role::Ipam => {
                self.has_ipam = !member.is_null();
                member.members(&mut |inside| self.take_place(inside))?;
            }
            "dns" => self.dns = dns(member)?,
            "runtimeConfig" => self.wishes[0] = Some(member.raw),
            "args" => self.wishes[1] = Some(member.raw),
            "prevResult" => self.previous = Some(member.raw),
            "cni.dev/valid-attachments" => self.valid = Some(member.raw),
            "socket" | "spoolDir" if self.role == Role::Main => self.take_place(member)?,
            // The runtime has used it to find the program.
            "type" => drop(member.text()?),
            _ => {}
        }
        Ok(())
    }

    /// Where the daemon is.
    fn take_place(&mut self, member: Value<'_, 'a>) -> Result<(), String> {
        match member.name {
            "socket" => self.socket = member.text()?,
            "spoolDir" => self.spool = member.text()?,
            _ => {}
        }
        Ok(())
    }
}

/// The members of an object that may be absent.
fn named<'a>(name: &str, raw: Option<&'a str>, each: Each<'_, 'a>) -> Result<(), String> {
    raw.map_or(Ok(()), |raw| Value { name, raw }.members(each))
}

/// `dns`, if it is what a result may have there (SPEC.md 1.1.0, "dns").
fn dns<'a>(dns: Value<'_, 'a>) -> Result<Option<&'a str>, String> {
    let text = |value: Value<'_, 'a>| value.text().map(drop);
    dns.members(&mut |member| match member.name {
        "nameservers" | "search" | "options" => member.elements(&mut { text }),
        "domain" => text(member),
        _ => Ok(()),
    })?;
    Ok((!dns.is_null()).then_some(dns.raw))
}

/// The version an error about this input carries: the one the configuration names, as far as it can be read and is
/// served, else the newest.
pub fn version_of(input: &[u8]) -> CniVersion {
    // Whatever is wrong behind the version does not matter here.
    let (version, _) = version_member(input);
    version.and_then(|version| CniVersion::from_name(&version)).unwrap_or(CniVersion::NEWEST)
}

/// The version that VERSION repeats (SPEC.md 1.1.0, "VERSION"): the one named on input, of which nothing is asked, or
/// the newest where there is none.
///
/// # Errors
/// `invalid-json` if there is input and it is not a JSON object with a string in this place.
pub fn version_asked(input: &[u8]) -> Result<Cow<'_, str>, Failure> {
    let newest = Cow::Borrowed(CniVersion::NEWEST.name());
    if trimmed(input).is_empty() {
        return Ok(newest);
    }
    let (version, read) = version_member(input);
    read.map_err(invalid_json)?;
    Ok(version.unwrap_or(newest))
}

/// `cniVersion`, and whether everything could be read.
fn version_member(input: &[u8]) -> (Option<Cow<'_, str>>, Result<(), String>) {
    let mut version = None;
    let read = members(input, &mut |member| {
        if member.name == "cniVersion" {
            version = member.text()?;
        }
        Ok(())
    });
    (version, read)
}

/// Whether the specification takes it for a network's name or a container's id (SPEC.md 1.1.0, "name" and
/// "CNI_CONTAINERID"). Such a name is safe in a path, a link's alias and a log line.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn invalid_json(fault: String) -> Failure {
    Failure::new(
        Cause::InvalidJson,
        format!("standard input is not a network configuration: {fault}"),
        "correct the network configuration (in /etc/cni/net.d on most nodes)",
    )
}

fn invalid(message: String) -> Failure {
    Failure::new(
        Cause::InvalidNetworkConfig,
        message,
        "correct the network configuration (in /etc/cni/net.d on most nodes)",
    )
}

fn incompatible(named: Option<&str>) -> Failure {
    let mut message = match named {
        Some(version) => format!("cniVersion {} is not one of", Quoted(version)),
        None => {
            format!("the configuration has no cniVersion, which means {}, and that is not one of", CniVersion::UNNAMED)
        }
    };
    for version in CniVersion::SUPPORTED {
        // Writing to a String cannot fail.
        let _ = write!(message, " {}", version.name());
    }
    Failure::new(Cause::IncompatibleCniVersion, message, "set cniVersion in the network configuration to one of these")
}

#[cfg(test)]
mod tests;
