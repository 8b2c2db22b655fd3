//! The `main` of an end-to-end test program, and the shipped programs it tests.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use dotfour_rig::daemon::socket_path;
use dotfour_rig::sandbox::{self, Entered, Sandbox};
use dotfour_rig::{DaemonConfig, Network, Node};
use libtest_mimic::{Arguments, Trial};

use crate::cgroup::{Keeper, serve_as_keeper};

/// Tells the tests which cgroup is theirs.
const CGROUP: &str = "DOTFOUR_E2E_CGROUP";

/// Why a test failed, or could not go on.
pub type Failure = Box<dyn Error + Send + Sync>;

/// What a test program's tests have at their disposal.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Proof of being in the rig's sandbox.
    pub sandbox: Sandbox,
    /// The cgroup, below the root of every hierarchy, under which all others are to be made. It is removed afterwards.
    pub cgroup: String,
}

/// Runs `tests` in a sandbox, as root, and cleans up after them. To be all that `main` does.
///
/// Without root it says so and fails: a container runtime cannot work in a user namespace that maps one user only, and
/// a test that did not run must not look like one that passed.
pub fn run(tests: impl FnOnce(&Ground) -> Vec<Trial>) -> ExitCode {
    if let Some(over) = serve_as_keeper().or_else(sandbox::serve_as_first_process) {
        return over;
    }
    let inside = Sandbox::current().zip(std::env::var(CGROUP).ok());
    if let Some((sandbox, cgroup)) = inside {
        let arguments = Arguments::from_args();
        return libtest_mimic::run(&arguments, tests(&Ground { sandbox, cgroup })).exit_code();
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "NOT RUN: these tests start a real container runtime, which needs root; `make test` has sudo run them"
        );
        return ExitCode::FAILURE;
    }
    run_inside().unwrap_or_else(|e| {
        eprintln!("FAILED: {e}");
        ExitCode::FAILURE
    })
}

/// As [`run`], for tests that need nothing but namespaces, which an ordinary user has too.
pub fn run_in_sandbox(tests: impl FnOnce(&Sandbox) -> Vec<Trial>) -> ExitCode {
    match sandbox::enter() {
        Ok(Entered::Inside(sandbox)) => libtest_mimic::run(&Arguments::from_args(), tests(&sandbox)).exit_code(),
        Ok(Entered::Over(status)) => status,
        Err(e) => {
            eprintln!("NOT RUN: these tests need namespaces of their own\n{}", with_causes(&e));
            ExitCode::FAILURE
        }
    }
}

/// A program as it is shipped: `make build` puts it where release builds go, beside the directory that this test program
/// is in.
pub fn shipped(name: &str) -> Result<PathBuf, Failure> {
    let this = std::env::current_exe()?;
    // target/PROFILE/deps/TEST
    let target = this.ancestors().nth(3).ok_or("this test program is not in a build directory")?;
    let file = target.join("release").join(name);
    if file.is_file() {
        Ok(file)
    } else {
        Err(format!("{} is not there; `make build` makes it", file.display()).into())
    }
}

/// Where Debian has the reference plugins.
pub const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// The shipped daemon, as it is by default.
pub fn daemon() -> Result<DaemonConfig, Failure> {
    Ok(DaemonConfig::new(shipped("dotfour-ipamd")?))
}

/// Where the shipped plugin is.
pub fn plugin_directory() -> Result<PathBuf, Failure> {
    Ok(shipped("dotfour")?.parent().ok_or("the plugin is in no directory")?.to_owned())
}

/// The shipped plugin with a node's daemon, which need not run yet, and nobody else in the chain.
pub fn network(node: &Node) -> Result<Network, Failure> {
    Ok(Network::dotfour(&plugin_directory()?, &socket_path(node)))
}

/// A program of the machine, where a shell would find it; nowhere where nobody installed it.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Writes a script, to be run as a plugin. By another process: a file that this one has open while a parallel test starts a
/// program is "busy".
pub fn write_script(file: &Path, script: &str) -> Result<(), Failure> {
    let write = r#"printf "%s" "$1" >"$2" && chmod 755 "$2""#;
    let status = Command::new("sh").args(["-c", write, "sh", script]).arg(file).status()?;
    if status.success() { Ok(()) } else { Err(format!("cannot write {}: {status}", file.display()).into()) }
}

/// The shipped daemon on a node whose clocks of boot and of monotonic time are so many seconds ahead of the machine's: what
/// it finds there is older than that.
pub fn older_daemon(node: &Node, seconds: u32) -> Result<DaemonConfig, Failure> {
    let older = node.state_dir().join("older-ipamd");
    let script = format!(
        "#!/bin/sh\nexec unshare --time --monotonic {seconds} --boottime {seconds} --fork --kill-child=KILL {} \"$@\"\n",
        shipped("dotfour-ipamd")?.display()
    );
    write_script(&older, &script)?;
    Ok(DaemonConfig { program: older, ..daemon()? })
}

/// Runs a program; what it prints.
///
/// # Errors
/// With what it said, if it fails.
pub fn output(command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A test that fails by returning an error, which is shown with its causes, or by a panic.
pub fn test(name: &str, body: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Trial {
    Trial::test(name, move || body().map_err(|e| with_causes(&*e).into()))
}

fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}\n  because: {cause}"))
}

fn run_inside() -> Result<ExitCode, Failure> {
    let cgroup = format!("dotfour-e2e-{}", std::process::id());
    let keeper = Keeper::start(&cgroup)?;
    // A process cannot safely change its own environment, but `env` can set it for another.
    let mut command = vec![OsString::from("env"), format!("{CGROUP}={cgroup}").into()];
    command.push(std::env::current_exe()?.into());
    command.extend(std::env::args_os().skip(1));
    let status = sandbox::run(&command)?;
    if keeper.finish() { Ok(status) } else { Err(format!("cgroups named {cgroup} are left behind").into()) }
}
