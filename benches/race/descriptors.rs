//! File descriptors: the race holds a sandbox open by each of thousands, and its processes shall not pay for that.

use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Allows this process as many descriptors as it may allow itself. What is still too few shows when they run out.
pub(crate) fn allow_many() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Gives the calling thread a table of descriptors of its own, with nothing in it but the standard three. A new process
/// starts with a copy of its parent's table and closes it one by one: with the sandboxes of a thousand pods held open
/// here, that would be half a millisecond on everybody's time.
///
/// What the thread owned before is no longer open on it; what it is lent by others it can use by path only.
pub(crate) fn leave_behind() -> io::Result<()> {
    unshare(CloneFlags::CLONE_FILES)?;
    let open: Vec<i32> = std::fs::read_dir("/proc/thread-self/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // The listing's own is closed already.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;

    use super::*;

    #[test]
    fn descriptors_are_left_behind_and_stay_open_for_others() {
        let mut kept = File::open("/proc/self/stat").unwrap();
        let open = || std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
        let counted = std::thread::spawn(move || {
            leave_behind().unwrap();
            open()
        });
        // The standard three, and the listing's own.
        assert!(counted.join().unwrap() <= 4);
        assert!(kept.read_to_string(&mut String::new()).unwrap() > 0);
    }
}
