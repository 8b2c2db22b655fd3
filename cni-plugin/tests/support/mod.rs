//! The real program as a process, for the tests of this folder.

pub(crate) mod daemon;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The program as it is installed, built from the sources as they are now: with the features of nothing but itself,
/// which is why it is no dependency of these tests (see `start/Cargo.toml`).
pub(crate) fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let built = Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--quiet", "-p", "dotfour", "--target-dir"])
            .arg(target)
            .status()
            .expect("cargo runs");
        assert!(built.success(), "cargo build --release -p dotfour: {built}");
        target.join("release/dotfour")
    })
}

/// One execution of the program, as a runtime makes it: with these variables and no others.
#[derive(Clone)]
pub(crate) struct Execution {
    /// The name that the program is run under, as whoever calls it has found it.
    pub(crate) name: &'static str,
    pub(crate) variables: BTreeMap<String, Vec<u8>>,
    pub(crate) stdin: Vec<u8>,
}

impl Execution {
    /// What containerd passes, for a network whose daemon is at `socket`.
    pub(crate) fn new(command: &str, socket: &str) -> Execution {
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "4f6e2d1c0b9a"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/proc/self/ns/net"),
            ("CNI_PATH", "/opt/cni/bin"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=7"),
            ("PATH", "/usr/bin:/bin"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        Execution {
            name: "/opt/cni/bin/dotfour",
            variables: variables.into(),
            stdin: configuration("1.1.0", socket).into_bytes(),
        }
    }

    pub(crate) fn named(mut self, name: &'static str) -> Execution {
        self.name = name;
        self
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Execution {
        self.variables.insert(name.to_owned(), value.as_bytes().to_vec());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Execution {
        self.variables.remove(name);
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Execution {
        self.stdin = stdin.into();
        self
    }

    /// Runs to the end. Panics if the program was ended by a signal or wrote to standard error.
    pub(crate) fn run(&self) -> Output {
        self.run_into(Stdio::piped())
    }

    /// As [`Execution::run`], with this standard output.
    pub(crate) fn run_into(&self, stdout: impl Into<Stdio>) -> Output {
        use std::os::unix::process::CommandExt;
        self.run_command(Command::new(program()).arg0(self.name), stdout)
    }

    /// As [`Execution::run`], with standard output closed. The program is called by a link made at this path.
    pub(crate) fn run_without_stdout(&self, link: &Path) -> Output {
        std::os::unix::fs::symlink(program(), link).unwrap();
        self.run_command(Command::new("sh").args(["-c", "exec \"$0\" >&-"]).arg(link), Stdio::null())
    }

    fn run_command(&self, command: &mut Command, stdout: impl Into<Stdio>) -> Output {
        use std::os::unix::ffi::OsStrExt;
        let mut child = command
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, std::ffi::OsStr::from_bytes(value))))
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        match child.stdin.take().unwrap().write_all(&self.stdin) {
            Ok(()) => {}
            // The program may refuse a call before it has read its input.
            Err(e) => assert_eq!(e.kind(), ErrorKind::BrokenPipe),
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.status.code().is_some(), "ended by a signal: {}", output.status);
        assert_eq!(output.stderr, b"");
        output
    }

    /// The one object printed by a call that succeeds.
    pub(crate) fn result(&self) -> Value {
        let output = self.run();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{printed}");
        serde_json::from_str(&printed).expect(&printed)
    }

    /// The one error object printed by a call that fails, checked for the form that every error has.
    pub(crate) fn error(&self) -> Value {
        let output = self.run();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{printed}");
        let error: Value = serde_json::from_str(&printed).expect(&printed);
        let members: Vec<_> = error.as_object().unwrap().keys().collect();
        assert_eq!(members, ["cniVersion", "code", "details", "msg"]);
        for text in ["cniVersion", "details", "msg"] {
            assert!(error[text].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        }
        error
    }
}

pub(crate) fn configuration(version: &str, socket: &str) -> String {
    format!(
        r#"{{"cniVersion":"{version}","name":"azure","type":"dotfour","socket":"{socket}","dns":{{"nameservers":["168.63.129.16"]}}}}"#
    )
}
