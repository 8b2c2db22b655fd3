//! The image: made by the script that `make image` runs, of the programs that `make build` made.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dotfour_datapath::Netns;
use dotfour_e2e::program::{self, Failure, output, shipped};
use dotfour_ipamd::config::{Masquerade, Metadata};
use dotfour_ipamd::rules::plan::{Inputs, plan};
use dotfour_ipamd::rules::table::Content;

use crate::Outcome;

/// What the image has beside documents: the programs, nft, its libraries and the loader. More is a mistake.
const MOST_FILES: usize = 24;

/// The root of the source code.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Makes an image of the programs in a directory.
pub(crate) fn make(programs: &Path, archive: &Path, name: &str) -> Result<String, Failure> {
    let mut script = Command::new(repository().join("scripts/dist-image"));
    script.arg("--programs").arg(programs).arg("--out").arg(archive).args(["--name", name, "--list"]);
    output(script.env("SOURCE_DATE_EPOCH", "1700000000"))
}

/// The same programs as another release: equal in what they do, different byte for byte.
pub(crate) fn earlier_programs(directory: &Path) -> Outcome {
    fs::create_dir_all(directory)?;
    for name in ["dotfour", "dotfour-ipamd", "dotfourctl"] {
        fs::copy(shipped(name)?, directory.join(name))?;
        // Behind what the program's headers describe: never loaded.
        fs::OpenOptions::new().append(true).open(directory.join(name))?.write_all(b"an earlier release")?;
    }
    Ok(())
}

pub(crate) fn reproducible() -> Outcome {
    let directory = tempfile::tempdir()?;
    let archives = ["one", "two"].map(|name| directory.path().join(name));
    let listing = make(&program::plugin_directory()?, &archives[0], "localhost/dotfour:same")?;
    // Elsewhere, and from copies with other times.
    let copies = directory.path().join("copies");
    fs::create_dir(&copies)?;
    for name in ["dotfour", "dotfour-ipamd", "dotfourctl"] {
        fs::copy(shipped(name)?, copies.join(name))?;
    }
    make(&copies, &archives[1], "localhost/dotfour:same")?;
    let [one, two] = archives.map(fs::read);
    let (one, two) = (one?, two?);
    assert!(one == two, "two images of the same programs differ");
    let files: BTreeSet<&str> = listing.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let running: Vec<&&str> = files.iter().filter(|path| !path.starts_with("/usr/share/doc/")).collect();
    assert!(running.len() <= MOST_FILES, "{running:?}");
    assert!(files.iter().any(|path| path.ends_with("/nftables/copyright")), "licences are missing: {files:?}");
    println!("{listing}image: {} bytes with {} files", one.len(), files.len());
    Ok(())
}

pub(crate) fn rules() -> Outcome {
    let directory = tempfile::tempdir()?;
    let root = unpack(directory.path())?;
    let json = serde_json::to_string(&transaction()?)?;
    let netns = Netns::create()?;
    // No library, no configuration and no program but the image's own.
    let nft = |arguments: &[&str], input: &str| -> Result<String, Failure> {
        let spawn = || {
            // nft reads its standard input by its name in /dev, which every runtime gives a container.
            let enter = r#"mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec chroot "$0" /usr/sbin/nft "$@""#;
            Command::new("unshare")
                .args(["--mount", "sh", "-c", enter])
                .arg(&root)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        };
        let mut child = netns.run(spawn)??;
        child.stdin.take().ok_or("no standard input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        if output.status.success() {
            Ok(String::from_utf8(output.stdout)?)
        } else {
            Err(format!("nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
        }
    };
    nft(&["-j", "-f", "-"], &json)?;
    let table = nft(&["list", "table", "inet", "dotfour"], "")?;
    for part in ["chain ", "saddr", "drop"] {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }
    for program in ["dotfour-ipamd", "dotfourctl"] {
        let mut command = Command::new("chroot");
        output(command.arg(&root).arg(format!("/usr/bin/{program}")).arg("--help"))?;
    }
    Ok(())
}

/// What the daemon writes on a node of one pod network, dual-stack and guarded, so that every kind of rule is in it.
fn transaction() -> Result<serde_json::Value, Failure> {
    let pods = ["10.240.0.0/16".parse()?, "fd00:10:240::/64".parse()?];
    let inputs = Inputs {
        masquerade: &Masquerade::default(),
        metadata: Metadata::Block,
        agent: None,
        nic: "eth0",
        node: "10.240.0.4".parse()?,
        node_v6: Some("fd00:10:240::4".parse()?),
        azure_pods: &pods,
        kubenet_pods: &[],
    };
    Ok(serde_json::to_value(Content::of(&plan(&inputs).plan).transaction(None))?)
}

/// The image's files, as a runtime would lay them out.
fn unpack(directory: &Path) -> Result<PathBuf, Failure> {
    let (archive, layout, root) = (directory.join("image.tar"), directory.join("layout"), directory.join("root"));
    make(&program::plugin_directory()?, &archive, "localhost/dotfour:rules")?;
    tar::Archive::new(fs::File::open(&archive)?).unpack(&layout)?;
    let blob = |digest: &serde_json::Value| -> Result<PathBuf, Failure> {
        let digest = digest.as_str().and_then(|text| text.strip_prefix("sha256:")).ok_or("no digest")?;
        Ok(layout.join("blobs/sha256").join(digest))
    };
    let read = |path: PathBuf| -> Result<serde_json::Value, Failure> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let index = read(layout.join("index.json"))?;
    let manifest = read(blob(index.pointer("/manifests/0/digest").ok_or("no manifest")?)?)?;
    let layer = blob(manifest.pointer("/layers/0/digest").ok_or("no layer")?)?;
    fs::create_dir(&root)?;
    output(Command::new("tar").arg("-xzf").arg(layer).arg("-C").arg(&root))?;
    Ok(root)
}
