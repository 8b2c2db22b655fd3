//! The plugin's program gets where the runtime looks for it, and nobody who runs it meanwhile fails.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use super::*;

/// Two releases of the plugin that both work: what follows a program's last section is not looked at.
fn releases(directory: &Path) -> [PathBuf; 2] {
    let content = fs::read(plugin()).unwrap();
    [1_usize, 2].map(|release| {
        let path = directory.join(format!("release-{release}"));
        write_program(&path, &[&content[..], &vec![b'.'; release]].concat());
        path
    })
}

fn speaks(program: &Path) -> Result<(), String> {
    let mut child = Command::new(program)
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    drop(child.stdin.take());
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    let text = said(&output);
    if output.status.success() && text.contains("supportedVersions") { Ok(()) } else { Err(text) }
}

/// How often the program must be replaced under those who run it, and how long that may take.
const REPLACEMENTS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(60);

/// Two installers put two releases in place in turn while the plugin is run again and again.
fn no_exec_fails_in(execs: usize) {
    let directory = tempfile::tempdir().unwrap();
    let (releases, bin_dir) = (releases(directory.path()), directory.path().join("bin"));
    assert!(install(&bin_dir, &releases[0]).output().unwrap().status.success());
    let (target, begun) = (bin_dir.join("dotfour"), Instant::now());
    let (started, done, replaced) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let ended = SetAtEnd(&done);
        for release in &releases {
            let (done, bin_dir, replaced) = (&done, &bin_dir, &replaced);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let output = install(bin_dir, release).output().unwrap();
                    assert!(output.status.success(), "{}", said(&output));
                    replaced.fetch_add(usize::from(said(&output).contains("installed")), Ordering::Relaxed);
                }
            });
        }
        let runners: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    // On a busy machine the installers may hardly get to run.
                    let enough = || replaced.load(Ordering::Relaxed) >= REPLACEMENTS || begun.elapsed() > PATIENCE;
                    while started.fetch_add(1, Ordering::Relaxed) < execs || !enough() {
                        if let Err(e) = speaks(&target) {
                            return Some(e);
                        }
                    }
                    None
                })
            })
            .collect();
        let failures: Vec<_> = runners.into_iter().filter_map(|runner| runner.join().unwrap()).collect();
        drop(ended);
        assert_eq!(failures, Vec::<String>::new());
    });
    let replaced = replaced.into_inner();
    println!("{} execs under {replaced} replacements", started.into_inner());
    assert!(replaced >= REPLACEMENTS, "the program was replaced {replaced} times only");
    assert_eq!(names(&bin_dir), ["dotfour", "dotfour-ipam"]);
}

#[test]
fn no_exec_of_the_plugin_fails_while_two_installers_replace_it() {
    no_exec_fails_in(2_000);
}

#[test]
#[ignore = "make soak"]
fn no_exec_of_the_plugin_fails_in_ten_thousand() {
    no_exec_fails_in(10_000);
}

#[test]
fn a_program_that_is_there_already_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let (bin_dir, plugin) = (directory.path().join("opt/cni/bin"), plugin());
    let inode = || {
        let output = install(&bin_dir, &plugin).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        bin_dir.join("dotfour").metadata().unwrap().ino()
    };
    let mode = || bin_dir.join("dotfour").metadata().unwrap().mode() & 0o7777;
    let first = inode();
    assert_eq!((inode(), mode()), (first, 0o755));
    fs::set_permissions(bin_dir.join("dotfour"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(inode(), first, "root can run it");
    fs::set_permissions(bin_dir.join("dotfour"), PermissionsExt::from_mode(0o644)).unwrap();
    assert_ne!(inode(), first, "equal, and nobody could run it");
    assert_eq!(mode(), 0o755);
}

#[test]
fn a_read_only_directory_serves_if_the_program_is_in_it_and_is_one_clear_error_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let bin_dir = directory.path().join("bin");
    fs::create_dir(&bin_dir).unwrap();
    // A mount namespace of its own, gone with the command.
    let sealed = |more: &str| {
        let script = format!(
            "mount --bind {bin} {bin} && mount -o remount,bind,ro {bin} && exec {DAEMON} install --cni-bin-dir {bin}{more} \
             --plugin {plugin}",
            bin = bin_dir.display(),
            plugin = plugin().display()
        );
        Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap()
    };
    let fails = |output: Output, named: &str| {
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.contains(named) && last.contains("Read-only file system"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    };
    fails(sealed(""), "is not there yet");
    fails(sealed("/deeper"), "is not there yet");
    write_program(&bin_dir.join("dotfour"), b"#!/bin/sh\n");
    fails(sealed(""), "another one than this release's");
    let set = |mode| fs::set_permissions(bin_dir.join("dotfour"), PermissionsExt::from_mode(mode)).unwrap();
    write_program(&bin_dir.join("dotfour"), &fs::read(plugin()).unwrap());
    for mode in [0o775, 0o757] {
        set(mode);
        fails(sealed(""), "group or others may write to the program there");
    }
    set(0o644);
    fails(sealed(""), "the program there cannot be run");
    for name in ["dotfour", "dotfour-ipam"] {
        write_program(&bin_dir.join(name), &fs::read(plugin()).unwrap());
    }
    let output = sealed("");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output).matches("nothing was written").count(), 2, "{}", said(&output));
}

#[test]
fn what_a_killed_installer_left_is_removed_and_what_is_missing_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let bin_dir = directory.path();
    fs::write(bin_dir.join(".dotfour-unfinished-1-2"), "half a program").unwrap();
    write_program(&bin_dir.join("loopback"), b"");
    let output = install(bin_dir, &plugin()).output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(names(bin_dir), ["dotfour", "dotfour-ipam", "loopback"]);
    assert!(text.contains("has no portmap") && text.contains("containernetworking-plugins"), "{text}");
    assert!(!text.contains("has no loopback"), "{text}");
}

#[test]
fn a_plugin_that_did_not_come_along_is_one_error() {
    let directory = tempfile::tempdir().unwrap();
    let output = install(directory.path(), Path::new("/nonexistent/dotfour")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("cannot read /nonexistent/dotfour"), "{}", said(&output));
    assert!(names(directory.path()).is_empty());
    // A stranger to the command is told how to use it, and a bad configuration what is wrong with it.
    let output = Command::new(DAEMON).args(["install", "--force"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let bad = directory.path().join("ipamd.yaml");
    fs::write(&bad, "cniBinDri: /opt\nsource: {kind: wireserver}\n").unwrap();
    let output = Command::new(DAEMON).args(["install", "--config"]).arg(&bad).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("did you mean `cniBinDir`?"), "{}", said(&output));
}
