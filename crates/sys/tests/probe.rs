//! Probes on the running kernel. A process of its own with one test in it, for descriptors and mappings
//! are counted, and the threads of other tests have some too.

use std::time::{Duration, Instant};

use gelid_sys::probe::{Feature, probe};

#[test]
fn every_probe_answers_quickly_and_leaves_nothing_behind() {
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
