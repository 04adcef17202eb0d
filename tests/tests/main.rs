//! Guests and real programs, dumped and restored on the running kernel.
//!
//! `cargo test -p gelid-tests -- pipe` runs what has `pipe` in its name; names are `GUEST/MODE`. Four tests run
//! at a time (many of them only wait) unless `--test-threads` says otherwise. `GELID_ROUNDS` sets the rounds of the mode `rounds`.

mod cgroups;
mod examine;
mod failures;
mod faults;
mod guests;
mod hooks;
mod joined;
mod networks;
mod options;
mod programs;
mod rpc;
mod runtimes;
mod servers;
mod unprivileged;

use gelid_tests::{Verdict, adopt_orphans, build};
use libtest_mimic::{Arguments, Completion, Failed, Trial, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let mut trials = vec![Trial::test("every file is listed", every_file_is_listed)];
    trials.extend(guests::trials());
    trials.extend(programs::trials());
    trials.extend(failures::trials());
    trials.extend(cgroups::trials());
    trials.extend(faults::trials());
    trials.extend(examine::trials());
    trials.extend(hooks::trials());
    trials.extend(joined::trials());
    trials.extend(networks::trials());
    trials.extend(options::trials());
    trials.extend(rpc::trials());
    trials.extend(runtimes::trials());
    trials.extend(servers::trials());
    trials.extend(unprivileged::trials());
    if !arguments.list {
        if !rustix::process::geteuid().is_root() {
            eprintln!("the integration tests freeze and restore processes, and need root");
            return ExitCode::FAILURE;
        }
        if let Err(error) = adopt_orphans().and_then(|()| build().map(|_| ())) {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    }
    let _pool = HugePages::reserve();
    let conclusion = run(&arguments, trials);
    println!("skipped: {}", conclusion.num_ignored);
    conclusion.exit_code()
}

/// Room for the guests that use huge pages, given back in the end. Where the machine has none to give, they skip.
struct HugePages(Option<String>);

impl HugePages {
    const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    fn reserve() -> Self {
        let before = std::fs::read_to_string(Self::POOL)
            .ok()
            .filter(|text| text.trim() == "0");
        if before.is_some() {
            let _ = std::fs::write(Self::POOL, "16");
        }
        Self(before)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(Self::POOL, before.trim());
        }
    }
}

/// A test that may find that this machine cannot run it.
fn trial(name: String, body: impl FnOnce() -> anyhow::Result<Verdict> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || match body() {
        Ok(Verdict::Passed) => Ok(Completion::Completed),
        Ok(Verdict::Skipped(reason)) => Ok(Completion::ignored_with(reason)),
        Err(error) => Err(Failed::from(format!("{error:#}"))),
    })
}

/// A module that is forgotten above would be a test that is never run.
fn every_file_is_listed() -> Result<(), Failed> {
    let own = include_str!("main.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        if name != "main" && !own.contains(&format!("\nmod {name};\n")) {
            return Err(format!("{} is not listed in main.rs", path.display()).into());
        }
    }
    Ok(())
}
