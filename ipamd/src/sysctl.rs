//! Where the kernel's network settings are read and written.

use std::path::Path;

/// Where the kernel has them.
const KERNEL: &str = "/proc/sys/net";
/// Where a container has them that may write: its own `/proc/sys` is read-only, and no runtime mounts anything over it. The
/// kernel shows everybody the settings of the network namespace that he is in, whichever mount he looks at.
const MOUNTED: &str = "/host/proc/sys/net";

/// The settings of the calling thread's network namespace: a mount of the host's `/proc/sys/net` at `/host/proc/sys/net`
/// where there is one, as in the DaemonSet.
pub fn directory() -> &'static Path {
    let mounted = Path::new(MOUNTED);
    // Not the directory itself: an image may have it, empty, as a place to mount on.
    if mounted.join("ipv4").is_dir() { mounted } else { Path::new(KERNEL) }
}
