//! Which processor a thread runs on.
//!
//! Two ends that talk are as fast as the scheduler places them, and it places them anew every time; on a virtual machine,
//! waking somebody on another processor costs more than the whole path. So both ends of a connection share one
//! processor, and what differs is what the path costs. Several connections use as many processors as there are.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Ties the calling thread to the processor of a connection. Where it may not be tied, it runs as it did.
pub(super) fn stay(connection: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).collect();
    let Some(processor) = chosen(&processors, connection) else { return };
    let mut only = CpuSet::new();
    only.set(processor);
    let _ = sched_setaffinity(None, &only);
}

fn chosen(processors: &[usize], connection: usize) -> Option<usize> {
    processors.get(connection.checked_rem(processors.len())?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_over_the_processors_that_are_allowed() {
        let places = [0, 1, 2, 3].map(|connection| chosen(&[2, 5, 6], connection));
        assert_eq!(places, [Some(2), Some(5), Some(6), Some(2)]);
        assert_eq!(chosen(&[], 0), None);
    }

    #[test]
    fn a_thread_stays_where_it_was_put_and_others_do_not() {
        let count = || sched_getaffinity(None).unwrap().count();
        let all = count();
        std::thread::spawn(move || {
            stay(1);
            assert_eq!(count(), 1);
        })
        .join()
        .unwrap();
        assert_eq!(count(), all);
    }
}
