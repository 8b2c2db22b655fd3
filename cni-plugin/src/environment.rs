//! The environment of one execution: the CNI variables, read and checked.

use alloc::format;
use alloc::string::String;
use core::fmt::{self, Write};

use dotfour_protocol::{Cause, Failure, PodName};

use crate::asked::Asked;
use crate::netconf::is_identifier;
use crate::quoted::Quoted;

/// The CNI variables as they are, before anyone has looked at them. `CNI_PATH` is for plugins that call others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Environment<'a> {
    command: Option<&'a [u8]>,
    container_id: Option<&'a [u8]>,
    ifname: Option<&'a [u8]>,
    netns: Option<&'a [u8]>,
    args: Option<&'a [u8]>,
}

/// `CNI_COMMAND`: the verbs that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach a pod.
    Add,
    /// Detach a pod.
    Del,
    /// Compare a pod with what ADD made.
    Check,
    /// Detach what the runtime does not know.
    Gc,
    /// Say whether an ADD could be served.
    Status,
    /// Name the versions of the specification that are spoken.
    Version,
}

/// What ADD needs of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddVariables<'a> {
    /// `CNI_CONTAINERID`.
    pub container_id: &'a str,
    /// `CNI_IFNAME`.
    pub ifname: &'a str,
    /// `CNI_NETNS`, not opened yet.
    pub netns: &'a str,
    /// `K8S_POD_NAMESPACE` and `K8S_POD_NAME` of `CNI_ARGS`.
    pub pod: Option<PodName>,
    /// `IP` of `CNI_ARGS`, one or several with commas between them.
    pub asked: Asked,
}

/// What CHECK needs of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckVariables<'a> {
    /// `CNI_CONTAINERID`.
    pub container_id: &'a str,
    /// `CNI_IFNAME`.
    pub ifname: &'a str,
    /// `CNI_NETNS`, not opened yet.
    pub netns: &'a str,
}

/// What DEL needs of the environment. Neither the namespace, which may be gone, nor `CNI_ARGS`: the attachment is
/// known by its key, and whatever is wrong with the others must not keep an address from being released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelVariables<'a> {
    /// `CNI_CONTAINERID`.
    pub container_id: &'a str,
    /// `CNI_IFNAME`.
    pub ifname: &'a str,
}

impl<'a> Environment<'a> {
    /// Picks the CNI variables out of an environment. Of a name that comes twice the first counts, as with `getenv`.
    pub fn collect(variables: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut found = Environment::default();
        for (name, value) in variables {
            let slot = match name {
                b"CNI_COMMAND" => &mut found.command,
                b"CNI_CONTAINERID" => &mut found.container_id,
                b"CNI_IFNAME" => &mut found.ifname,
                b"CNI_NETNS" => &mut found.netns,
                b"CNI_ARGS" => &mut found.args,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        found
    }

    /// Whether a verb is asked for at all.
    pub fn has_command(&self) -> bool {
        self.command.is_some()
    }

    /// The verb asked for.
    ///
    /// # Errors
    /// `invalid-environment` if it is missing or not served.
    pub fn command(&self) -> Result<Command, Failure> {
        match self.command.unwrap_or_default() {
            b"ADD" => Ok(Command::Add),
            b"DEL" => Ok(Command::Del),
            b"CHECK" => Ok(Command::Check),
            b"GC" => Ok(Command::Gc),
            b"STATUS" => Ok(Command::Status),
            b"VERSION" => Ok(Command::Version),
            b"" => Err(Failure::new(
                Cause::InvalidEnvironment,
                "CNI_COMMAND is missing",
                "dotfour is a CNI plugin, which a container runtime runs; for people there is dotfourctl",
            )),
            other => Err(Failure::new(
                Cause::InvalidEnvironment,
                format!("CNI_COMMAND {} is not served", Quoted(&String::from_utf8_lossy(other))),
                "this plugin serves ADD, DEL, CHECK, GC, STATUS and VERSION",
            )),
        }
    }

    /// What ADD needs.
    ///
    /// # Errors
    /// One `invalid-environment` that names every variable that is missing or not usable.
    pub fn for_add(&self) -> Result<AddVariables<'a>, Failure> {
        let mut faults = Faults::default();
        let container_id = faults.check(&CONTAINER_ID, self.container_id);
        let ifname = faults.check(&IFNAME, self.ifname);
        let netns = faults.check(&NETNS, self.netns);
        let Args { pod, asked } = Args::read(self.args.unwrap_or_default()).unwrap_or_else(|fault| {
            faults.add(format_args!("CNI_ARGS {fault}"));
            Args::default()
        });
        faults.finish()?;
        Ok(AddVariables { container_id, ifname, netns, pod, asked })
    }

    /// What CHECK needs.
    ///
    /// # Errors
    /// As [`Environment::for_add`].
    pub fn for_check(&self) -> Result<CheckVariables<'a>, Failure> {
        let mut faults = Faults::default();
        let container_id = faults.check(&CONTAINER_ID, self.container_id);
        let ifname = faults.check(&IFNAME, self.ifname);
        let netns = faults.check(&NETNS, self.netns);
        faults.finish()?;
        Ok(CheckVariables { container_id, ifname, netns })
    }

    /// What DEL needs.
    ///
    /// # Errors
    /// As [`Environment::for_add`].
    pub fn for_del(&self) -> Result<DelVariables<'a>, Failure> {
        let mut faults = Faults::default();
        let container_id = faults.check(&CONTAINER_ID, self.container_id);
        let ifname = faults.check(&IFNAME, self.ifname);
        faults.finish()?;
        Ok(DelVariables { container_id, ifname })
    }
}

/// A variable that may not be missing, and what its value must be.
struct Rule {
    name: &'static str,
    holds: fn(&str) -> bool,
    /// Completes the sentence "the value … must".
    must: &'static str,
}

const CONTAINER_ID: Rule = Rule {
    name: "CNI_CONTAINERID",
    holds: is_identifier,
    must: "begin with a letter or digit and go on with letters, digits, '_', '.' or '-'",
};

const IFNAME: Rule = Rule {
    name: "CNI_IFNAME",
    holds: is_ifname,
    must: "have at most 15 bytes, no '/', ':', '%' or whitespace, and be neither '.' nor '..'",
};

/// Whether it is the path of a namespace is found out by opening it, and by the daemon.
const NETNS: Rule = Rule { name: "CNI_NETNS", holds: |_| true, must: "be a path" };

/// What the kernel takes for a link's name (`dev_valid_name`, net/core/dev.c), and not as a pattern: a name with '%'
/// would be answered with a link of another name.
fn is_ifname(name: &str) -> bool {
    // The kernel's `isspace` is Latin-1's: it has the vertical tab, and the no-break space as a single byte.
    let forbidden = |byte: &u8| matches!(byte, b'/' | b':' | b'%' | b' ' | 0x09..=0x0d | 0xa0);
    name.len() <= 15 && name != "." && name != ".." && !name.as_bytes().iter().any(forbidden)
}

/// What counts of `CNI_ARGS` (`KEY=value;KEY=value`), the rest of which is for others.
#[derive(Default)]
struct Args {
    pod: Option<PodName>,
    asked: Asked,
}

impl Args {
    /// An empty pair, as a semicolon at the end leaves one, says nothing and is no fault. Errs with the rest of a sentence
    /// about `CNI_ARGS`.
    fn read(args: &[u8]) -> Result<Self, String> {
        let args = core::str::from_utf8(args).map_err(|_| String::from("is not UTF-8"))?;
        let (mut namespace, mut name, mut asked) = ("", "", Asked::default());
        for pair in args.split(';').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                None | Some(("", _)) => return Err(format!("has {}, which is not KEY=value", Quoted(pair))),
                Some(("K8S_POD_NAMESPACE", value)) => namespace = value,
                Some(("K8S_POD_NAME", value)) => name = value,
                Some(("IP", "")) => {}
                Some(("IP", value)) => value.split(',').try_for_each(|address| asked.push(address))?,
                Some(_) => {}
            }
        }
        // Half of it is what podman passes, whose containers have a name and no namespace: that is no pod of Kubernetes.
        let named = !namespace.is_empty() && !name.is_empty();
        let pod = named.then(|| PodName { namespace: namespace.into(), name: name.into() });
        Ok(Args { pod, asked })
    }
}

/// Everything that is wrong with the variables of one call, as one sentence.
#[derive(Default)]
struct Faults(String);

impl Faults {
    fn add(&mut self, fault: fmt::Arguments<'_>) {
        let separator = if self.0.is_empty() { "" } else { "; " };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{separator}{fault}");
    }

    /// The value, if the rule holds for it. An empty one counts as missing, as it does for libcni.
    fn check<'a>(&mut self, rule: &Rule, value: Option<&'a [u8]>) -> &'a str {
        let value = value.unwrap_or_default();
        match core::str::from_utf8(value) {
            Ok("") => self.add(format_args!("{} is missing", rule.name)),
            Ok(value) if (rule.holds)(value) => return value,
            Ok(value) => self.add(format_args!("{} {} must {}", rule.name, Quoted(value), rule.must)),
            Err(_) => self.add(format_args!("{} is not UTF-8", rule.name)),
        }
        ""
    }

    fn finish(self) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(invalid(self.0))
    }
}

/// The failure of an ADD whose `CNI_ARGS` ask for other addresses than its configuration does.
pub(crate) fn conflicting_addresses(fault: String) -> Failure {
    invalid(format!("CNI_ARGS, with the network configuration's ips, {fault}"))
}

fn invalid(message: String) -> Failure {
    let next_step = "the container runtime sets these variables: check what calls the plugin";
    Failure::new(Cause::InvalidEnvironment, message, next_step)
}

#[cfg(test)]
mod tests;
