//! The sandbox image: a busybox that sleeps for ever, made on the spot.
//!
//! The file has the form that `docker save` writes, which `ctr image import` reads. It needs one digest only, that of
//! the layer; an OCI layout would need one per file.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

/// The image's name inside the runtime. `localhost` is no registry, so nobody can try to pull it.
pub const REFERENCE: &str = "localhost/dotfour-pause:1";

/// Writes the image to `archive`, with `busybox` and the libraries it needs, if it needs any, as its only files.
///
/// # Errors
/// If busybox cannot be read or the archive not be written.
pub fn write(archive: &Path, busybox: &Path) -> io::Result<()> {
    let mut layer = tar::Builder::new(Vec::new());
    layer.append_path_with_name(busybox, "busybox")?;
    for library in libraries(busybox)? {
        layer.append_path_with_name(&library, library.trim_start_matches('/'))?;
    }
    let layer = layer.into_inner()?;

    let digest: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({
        "architecture": goarch(),
        "os": "linux",
        "config": { "Entrypoint": ["/busybox", "sleep", "infinity"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [REFERENCE], "Layers": ["layer.tar"] }]);

    let mut image = tar::Builder::new(File::create(archive)?);
    append(&mut image, "manifest.json", manifest.to_string().as_bytes())?;
    append(&mut image, "config.json", config.to_string().as_bytes())?;
    append(&mut image, "layer.tar", &layer)?;
    image.into_inner()?.sync_all()
}

/// Puts the image's files into a directory, for a runtime that takes one as it is, and with them the directories that
/// runc mounts on.
///
/// # Errors
/// If busybox cannot be read or the directory not be written.
pub fn unpack(directory: &Path, busybox: &Path) -> io::Result<()> {
    for place in ["proc", "sys", "dev", "etc", "run", "tmp"] {
        fs::create_dir_all(directory.join(place))?;
    }
    fs::copy(busybox, directory.join("busybox"))?;
    for library in libraries(busybox)? {
        let copy = directory.join(library.trim_start_matches('/'));
        copy.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::copy(&library, copy)?;
    }
    Ok(())
}

/// The loader and the libraries of a program, by their absolute paths. Debian's busybox-static has none; but it cannot be
/// installed beside its sister `busybox`, which many machines have.
fn libraries(program: &Path) -> io::Result<Vec<String>> {
    // On a static program ldd says so on standard error and fails.
    let output = Command::new("ldd").arg(program).output()?;
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(listing.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

fn append(image: &mut tar::Builder<File>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len().try_into().map_err(io::Error::other)?);
    header.set_mode(0o644);
    image.append_data(&mut header, name, content)
}

/// The machine's architecture, in the word that images use for it.
fn goarch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
