//! Where the rig keeps its files and how its network namespaces get a path.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use dotfour_datapath::Netns;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::RigError;

/// Where files go, and whether namespaces are mounted under names.
#[derive(Debug, Clone)]
pub struct Place {
    state_dir: PathBuf,
    netns_dir: Option<PathBuf>,
}

impl Place {
    /// Namespaces get names under `netns_dir`, as `ip netns` and container runtimes give them. Both directories must
    /// exist. Mounts stay until they are dropped, so this is for private mounts only: see [`crate::sandbox`].
    pub fn named(state_dir: impl Into<PathBuf>, netns_dir: impl Into<PathBuf>) -> Self {
        Place { state_dir: state_dir.into(), netns_dir: Some(netns_dir.into()) }
    }

    /// Nothing is mounted: a namespace's path leads through this process's descriptor (`/proc/PID/fd/N`), and lives as
    /// long as that. For root without a sandbox.
    pub fn unnamed(state_dir: impl Into<PathBuf>) -> Self {
        Place { state_dir: state_dir.into(), netns_dir: None }
    }

    /// A place of its own inside this one, so that several VNets do not meet. Makes its directories; a repeated call
    /// gives the same place.
    pub fn within(&self, name: &str) -> Result<Self, RigError> {
        let made = |parent: &Path| {
            let path = parent.join(name);
            fs::create_dir_all(&path).map(|()| path.clone()).map_err(|source| RigError::File { path, source })
        };
        let netns_dir = self.netns_dir.as_deref().map(made).transpose()?;
        Ok(Place { state_dir: made(&self.state_dir)?, netns_dir })
    }

    /// The directory for the nodes' files.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Makes a network namespace with a path. A name in use is refused.
    pub fn create_netns(&self, name: &str) -> Result<PlacedNetns, RigError> {
        let failed = |source| RigError::Netns { name: name.to_owned(), source };
        let netns = Netns::create().map_err(failed)?;
        let descriptor = netns.as_fd().as_raw_fd();
        let Some(directory) = &self.netns_dir else {
            let path = PathBuf::from(format!("/proc/{}/fd/{descriptor}", process_number().map_err(failed)?));
            return Ok(PlacedNetns { netns, path, mounted: false });
        };
        let path = directory.join(name);
        OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        let mounted = mount_bind(format!("/proc/self/fd/{descriptor}"), &path).map_err(io::Error::from);
        if let Err(e) = mounted {
            let _ = fs::remove_file(&path);
            return Err(failed(e));
        }
        Ok(PlacedNetns { netns, path, mounted: true })
    }
}

/// This process's number in the `/proc` that is mounted, which need not be that of its own process namespace.
fn process_number() -> io::Result<String> {
    Ok(fs::read_link("/proc/self")?.to_string_lossy().into_owned())
}

/// A network namespace that other programs can open by a path.
#[derive(Debug)]
pub struct PlacedNetns {
    netns: Netns,
    path: PathBuf,
    mounted: bool,
}

impl PlacedNetns {
    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its path, as `CNI_NETNS` has it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a setting under `/proc/sys` that belongs to this namespace.
    ///
    /// # Errors
    /// If there is no such setting, or the machine keeps `/proc/sys` read-only (some containers).
    pub fn set_sysctl(&self, setting: &str, value: &str) -> Result<(), RigError> {
        let path = Path::new("/proc/sys").join(setting);
        let written =
            self.netns.run(|| File::options().write(true).open(&path).and_then(|file| write_all(&file, value)));
        written.flatten().map_err(|source| RigError::Sysctl { setting: setting.to_owned(), source })
    }
}

fn write_all(mut file: &File, value: &str) -> io::Result<()> {
    io::Write::write_all(&mut file, value.as_bytes())
}

impl Drop for PlacedNetns {
    fn drop(&mut self) {
        if self.mounted {
            // What fails here vanishes with the sandbox.
            let _ = unmount(&self.path, UnmountFlags::DETACH);
            let _ = fs::remove_file(&self.path);
        }
    }
}
