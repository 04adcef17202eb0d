//! Names and certain answers of the probes.

use gelid_sys::probe::{Feature, Support, probe};

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
