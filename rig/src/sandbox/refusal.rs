//! Why a machine refuses namespaces, and what its owner can do.

use std::io;
use std::path::Path;

use super::SandboxError;

/// The settings that can forbid namespaces, as found on this machine.
#[derive(Debug, Default)]
struct Settings {
    /// The caller is root.
    root: bool,
    /// `kernel.unprivileged_userns_clone` (Debian).
    unprivileged_clone: Option<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu).
    apparmor: Option<String>,
    /// `user.max_user_namespaces`.
    maximum: Option<String>,
}

/// A refusal with its likely reason.
pub(super) fn forbidden(step: &'static str, refusal: io::Error) -> SandboxError {
    let read =
        |name: &str| std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok().map(|s| s.trim().to_owned());
    let (why, remedy) = explain(&Settings {
        root: rustix::process::geteuid().is_root(),
        unprivileged_clone: read("kernel/unprivileged_userns_clone"),
        apparmor: read("kernel/apparmor_restrict_unprivileged_userns"),
        maximum: read("user/max_user_namespaces"),
    });
    SandboxError::Forbidden { step, refusal, why: why.to_owned(), remedy: remedy.to_owned() }
}

fn explain(settings: &Settings) -> (&'static str, &'static str) {
    let is = |setting: &Option<String>, value| setting.as_deref() == Some(value);
    if is(&settings.unprivileged_clone, "0") {
        return (
            "kernel.unprivileged_userns_clone is 0",
            "run as root, or `sudo sysctl kernel.unprivileged_userns_clone=1`",
        );
    }
    if is(&settings.maximum, "0") {
        return ("user.max_user_namespaces is 0", "run as root, or `sudo sysctl user.max_user_namespaces=10000`");
    }
    if is(&settings.apparmor, "1") {
        return (
            "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)",
            "run as root, or `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
        );
    }
    if settings.root {
        return (
            "root without CAP_SYS_ADMIN, most likely in a container whose seccomp profile forbids unshare",
            "start the container with --privileged, or run outside it",
        );
    }
    ("a security policy (seccomp, SELinux, AppArmor) forbids it", "run as root, or outside of the container")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_that_forbids_is_named_with_its_switch() {
        let setting = |value: &str| Some(value.to_owned());
        let debian = Settings { unprivileged_clone: setting("0"), apparmor: setting("0"), ..Settings::default() };
        assert!(explain(&debian).1.contains("kernel.unprivileged_userns_clone=1"));
        let ubuntu = Settings { maximum: setting("63000"), apparmor: setting("1"), ..Settings::default() };
        assert!(explain(&ubuntu).1.contains("kernel.apparmor_restrict_unprivileged_userns=0"));
        let locked = Settings { maximum: setting("0"), ..Settings::default() };
        assert!(explain(&locked).1.contains("user.max_user_namespaces"));
        let container = Settings { root: true, maximum: setting("63000"), ..Settings::default() };
        assert!(explain(&container).1.contains("--privileged"));
        assert!(explain(&Settings::default()).1.contains("as root"));
    }
}
