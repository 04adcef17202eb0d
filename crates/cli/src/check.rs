//! `gelid check`: what this kernel offers, what is missing, and what that costs.
//!
//! As CRIU does it: without an option the features that every dump or restore needs, with `--feature` one,
//! with `--extra`, `--experimental` or `--all` those that some trees need. The exit code is 0 or 1. Called as
//! `criu`, only the verdict is printed; the details go to the log. With `--images DIR` it is the images that are
//! compared with this machine.

mod costs;

use anyhow::{Context, bail};
use gelid_netlock::Method;
use gelid_sys::probe::{Feature, Support, probe};
use serde_json::json;

use self::costs::{Cost, Need};
use crate::args::{Identity, Invocation};

/// Features that CRIU knows and that have no meaning here, with the reason.
const NOT_OURS: [(&str, &str); 4] = [
    ("mem_dirty_track", "incremental dumps are not there yet"),
    ("uffd", "memory is not restored on demand yet"),
    ("uffd-noncoop", "memory is not restored on demand yet"),
    ("compat_cr", "32-bit tasks are not supported yet"),
];

/// A feature that CRIU needs and gelid does not: devices get their numbers when they are made.
const NEEDLESS: &str = "newifindex";

/// Answers, by words and by whether it looks good.
pub(crate) fn run(invocation: &Invocation) -> anyhow::Result<bool> {
    let options = &invocation.options.check;
    if let Some(name) = &options.feature {
        return feature(name);
    }
    let extra = options.extra || options.all;
    let experimental = options.experimental || options.all;
    let wanted = |need: Need| match need {
        Need::Always => true,
        Need::Some | Need::Later => extra,
        Need::Experimental => experimental,
    };
    let findings: Vec<Finding> = Feature::ALL
        .iter()
        .map(|feature| (*feature, costs::of(*feature)))
        .filter(|(_, cost)| wanted(cost.need))
        .map(|(feature, cost)| Finding {
            feature,
            cost,
            support: probe(feature),
        })
        .collect();
    tell(invocation, &findings);
    Ok(verdict(invocation.identity, options.json, &findings))
}

/// Whether images are to be compared with this machine, and not the kernel with what gelid needs.
pub(crate) fn of_images(invocation: &Invocation) -> bool {
    let options = &invocation.options;
    let asked = &options.check;
    let other = asked.feature.is_some() || asked.extra || asked.experimental || asked.all;
    invocation.identity == Identity::Gelid
        && !other
        && options.general.images_dir != std::path::Path::new(".")
}

/// Whether gelid makes use of a feature of the kernel that CRIU makes use of.
pub(crate) fn is_ours(name: &str) -> bool {
    NOT_OURS.iter().all(|(other, _)| *other != name)
}

/// `--feature NAME`, or `list` for the names.
fn feature(name: &str) -> anyhow::Result<bool> {
    if name == "list" {
        Feature::ALL
            .iter()
            .for_each(|feature| println!("{}", feature.name()));
        return Ok(true);
    }
    if let Some((_, reason)) = NOT_OURS.iter().find(|(other, _)| *other == name) {
        bail!("{name}: {reason}");
    }
    if name == NEEDLESS {
        println!("{name} is supported");
        return Ok(true);
    }
    if let Some(found) = firewall(name) {
        found.with_context(|| format!("{name} is not supported"))?;
        println!("{name} is supported");
        return Ok(true);
    }
    let Some(feature) = Feature::from_name(name) else {
        bail!("Unknown feature {name}")
    };
    match probe(feature) {
        Support::Yes => {
            println!("{name} is supported");
            Ok(true)
        }
        // As little as for a check of everything.
        Support::Unknown(reason) => {
            tracing::warn!("{name} ({}): {reason}", feature.about());
            println!("{name} is supported");
            Ok(true)
        }
        Support::No(reason) => {
            bail!("{name} ({}) is not supported: {reason}", feature.about())
        }
    }
}

/// What there is to keep packets away with; `None` for features that are none of that.
fn firewall(name: &str) -> Option<Result<(), gelid_netlock::Error>> {
    match name {
        "nftables" | "network_lock_nftables" => Some(gelid_netlock::check(Method::Nftables)),
        "has_ipt_legacy" => Some(gelid_netlock::has("iptables-legacy-save")),
        _ => None,
    }
}

struct Finding {
    feature: Feature,
    cost: Cost,
    support: Support,
}

impl Finding {
    /// What could not be found out is not held against the kernel.
    fn is_missing(&self) -> bool {
        matches!(self.support, Support::No(_))
    }
}

/// Prints the findings: for people a table, for programs a document, as `criu` a warning for what is missing.
fn tell(invocation: &Invocation, findings: &[Finding]) {
    let options = &invocation.options.check;
    if options.json {
        let rows: Vec<_> = findings.iter().map(as_json).collect();
        println!("{:#}", json!(rows));
        return;
    }
    for finding in findings {
        let Finding {
            feature,
            cost,
            support,
        } = finding;
        let (name, about) = (feature.name(), feature.about());
        let full = options.extra || options.experimental || options.all;
        match (invocation.identity, support) {
            (Identity::Gelid, Support::Yes) if full => println!("{name:<26} yes      {about}"),
            (Identity::Gelid, Support::No(reason)) => {
                println!(
                    "{name:<26} no       {about}: {reason}\n{:36}without it: {}",
                    "", cost.without
                );
            }
            (Identity::Gelid, Support::Unknown(reason)) if full => {
                println!("{name:<26} unknown  {about}: {reason}");
            }
            (Identity::Criu, Support::No(reason)) => tracing::warn!("{name}: {reason}"),
            _ => {}
        }
    }
}

fn as_json(finding: &Finding) -> serde_json::Value {
    let (support, reason) = match finding.support {
        Support::Yes => ("yes", None),
        Support::No(reason) => ("no", Some(reason.to_string())),
        Support::Unknown(reason) => ("unknown", Some(reason.to_string())),
    };
    json!({
        "name": finding.feature.name(),
        "about": finding.feature.about(),
        "support": support,
        "reason": reason,
        "need": finding.cost.need.name(),
        "without": finding.cost.without,
    })
}

/// The lines that CRIU's callers look for, and whether they are good ones.
fn verdict(identity: Identity, json: bool, findings: &[Finding]) -> bool {
    let missing = |always: bool| {
        findings
            .iter()
            .any(|finding| finding.is_missing() && (finding.cost.need == Need::Always) == always)
    };
    if missing(true) {
        tracing::warn!("Does not look good.");
        return false;
    }
    if missing(false) {
        if !json {
            println!(
                "Looks good but some kernel features are missing\n\
                 which, depending on your process tree, may cause\n\
                 dump or restore failure."
            );
        }
        // What gelid does not use yet is no reason to be unhappy, except for a caller that expects CRIU.
        let used = findings
            .iter()
            .any(|finding| finding.is_missing() && finding.cost.need != Need::Later);
        return !used && identity == Identity::Gelid;
    }
    if !json {
        println!("Looks good.");
    }
    true
}
