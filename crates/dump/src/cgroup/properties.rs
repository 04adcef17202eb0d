//! Properties of groups that are recorded, by controller. Section 22.1 of the format.

/// Those of every hierarchy of version 1.
const VERSION_1: &[&str] = &[
    "cgroup.clone_children",
    "notify_on_release",
    "cgroup.procs",
    "tasks",
];

/// Those of version 2.
const VERSION_2: &[&str] = &[
    "cgroup.subtree_control",
    "cgroup.max.descendants",
    "cgroup.max.depth",
    "cgroup.freeze",
    "cgroup.type",
];

/// Those of a controller.
fn of_controller(controller: &str) -> &'static [&'static str] {
    match controller {
        "cpu" => &[
            "cpu.shares",
            "cpu.cfs_period_us",
            "cpu.cfs_quota_us",
            "cpu.rt_period_us",
            "cpu.rt_runtime_us",
        ],
        "memory" => &[
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.swappiness",
            "memory.soft_limit_in_bytes",
            "memory.move_charge_at_immigrate",
            "memory.oom_control",
            "memory.use_hierarchy",
            "memory.kmem.limit_in_bytes",
            "memory.kmem.tcp.limit_in_bytes",
        ],
        "cpuset" => &[
            "cpuset.cpus",
            "cpuset.mems",
            "cpuset.memory_migrate",
            "cpuset.cpu_exclusive",
            "cpuset.mem_exclusive",
            "cpuset.mem_hardwall",
            "cpuset.memory_spread_page",
            "cpuset.memory_spread_slab",
            "cpuset.sched_load_balance",
            "cpuset.sched_relax_domain_level",
        ],
        "blkio" => &["blkio.weight"],
        "net_cls" => &["net_cls.classid"],
        "net_prio" => &["net_prio.ifpriomap"],
        "pids" => &["pids.max"],
        "devices" => &["devices.list"],
        _ => &[],
    }
}

/// The properties of a hierarchy, in the order of the format.
pub(super) fn of(hierarchy: &str) -> impl Iterator<Item = &'static str> {
    let controllers = hierarchy.split(',').flat_map(of_controller);
    let every = match hierarchy {
        "" => VERSION_2,
        _ => VERSION_1,
    };
    controllers.chain(every).copied()
}

/// Whether only the owner of a property matters.
pub(super) fn is_list_of_tasks(name: &str) -> bool {
    matches!(name, "cgroup.procs" | "tasks")
}

/// What is recorded of the text of a property.
pub(super) fn value(name: &str, mut text: Vec<u8>) -> Vec<u8> {
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    if name != "memory.oom_control" {
        return text;
    }
    // The first of several lines: what can be set.
    let mut lines = text.split(|byte| *byte == b'\n');
    let number = lines.find_map(|line| line.strip_prefix(b"oom_kill_disable "));
    number.unwrap_or(&text).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_that_are_mounted_together_have_both_kinds() {
        let names: Vec<_> = of("pids,devices").collect();
        assert_eq!(names[..2], ["pids.max", "devices.list"]);
        assert_eq!(names.len(), 6);
        assert_eq!(of("name=systemd").next(), Some("cgroup.clone_children"));
        assert_eq!(of("").next(), Some("cgroup.subtree_control"));
    }

    #[test]
    fn values_are_what_can_be_written() {
        assert_eq!(value("pids.max", b"max\n".to_vec()), b"max");
        let text = b"oom_kill_disable 1\nunder_oom 0\noom_kill 0\n".to_vec();
        assert_eq!(value("memory.oom_control", text), b"1");
    }
}
