//! Probes on the running kernel. A process of its own, for descriptors and mappings are counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gelid_sys::probe::{Feature, Support, probe};

/// Held by whoever probes.
static PROBING: Mutex<()> = Mutex::new(());

#[test]
fn every_probe_answers_quickly_and_leaves_nothing_behind() {
    let _alone = PROBING.lock().unwrap_or_else(PoisonError::into_inner);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = || {
        std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count()
    };
    for feature in Feature::ALL {
        // The first time may have to map the C library's memory or load a module.
        probe(*feature);
        let (fds, areas, start) = (descriptors(), maps(), Instant::now());
        let support = probe(*feature);
        let took = start.elapsed();
        println!("{:26} {took:>10.1?} {support:?}", feature.name());
        // Generous, for the machine may be busy: this finds probes that wait for something.
        assert!(took < Duration::from_secs(1), "{feature:?} took {took:?}");
        assert_eq!(descriptors(), fds, "{feature:?} leaks a descriptor");
        assert!(maps() <= areas + 1, "{feature:?} leaks memory");
    }
}

#[test]
fn names_are_unique_and_found() {
    for feature in Feature::ALL {
        assert_eq!(Feature::from_name(feature.name()), Some(*feature));
        assert!(!feature.about().is_empty());
    }
    assert_eq!(Feature::from_name("list"), None);
}

#[test]
fn what_this_process_uses_is_there() {
    let _alone = PROBING.lock().unwrap_or_else(PoisonError::into_inner);
    // Every kernel since 5.10 has these, and no privilege is needed.
    for feature in [
        Feature::MntId,
        Feature::NsPid,
        Feature::PidfdStore,
        Feature::FdinfoLock,
    ] {
        assert_eq!(probe(feature), Support::Yes, "{feature:?}");
    }
}
