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

/// What is recorded of the groups of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Definition {
    controller: String,
    /// Instead of what was known before.
    replaces: bool,
    properties: Vec<String>,
}

/// Properties that are recorded beside or instead of the usual ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    definitions: Vec<Definition>,
    /// The usual properties of a controller are left out if others are defined for it.
    pub instead: bool,
}

/// A definition that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the properties of cgroups: expected {expected}")]
pub struct BadProperties {
    /// Which line, from 1.
    pub line: usize,
    /// What should be there.
    pub expected: &'static str,
}

impl Properties {
    /// Takes up definitions; each is three lines: `"CONTROLLER":`, ` - "strategy": "merge"` or `"replace"`,
    /// ` - "properties": ["NAME", "NAME"]`.
    ///
    /// # Errors
    ///
    /// [`BadProperties`].
    pub fn define(&mut self, text: &str) -> Result<(), BadProperties> {
        let mut lines = text.lines().enumerate().peekable();
        while let Some((at, line)) = lines.next() {
            if line.trim().is_empty() && lines.peek().is_none() {
                break;
            }
            let wrong = |line, expected| BadProperties { line, expected };
            let controller = line.strip_suffix(':').and_then(quoted);
            let controller = controller.ok_or(wrong(at + 1, "\"CONTROLLER\":"))?;
            let mut value = |key: &str| {
                let line = lines.next().map_or("", |(_, line)| line);
                line.strip_prefix(key).map(str::trim_end)
            };
            let expected = " - \"strategy\": \"merge\" or \"replace\"";
            let replaces = match value(" - \"strategy\": ").and_then(quoted) {
                Some("merge") => false,
                Some("replace") => true,
                _ => return Err(wrong(at + 2, expected)),
            };
            let names = value(" - \"properties\": ").and_then(list);
            let expected = " - \"properties\": [\"NAME\", \"NAME\"]";
            self.definitions.push(Definition {
                controller: controller.to_owned(),
                replaces,
                properties: names.ok_or(wrong(at + 3, expected))?,
            });
        }
        Ok(())
    }

    /// The properties of a hierarchy, in the order of the format.
    pub(super) fn of(&self, hierarchy: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        match hierarchy {
            // Its groups have the properties of all controllers.
            "" => {
                let defined = self.definitions.iter();
                names.extend(defined.flat_map(|defined| defined.properties.iter().cloned()));
            }
            _ => names.extend(
                hierarchy
                    .split(',')
                    .flat_map(|controller| self.of_controller(controller)),
            ),
        }
        let every = match hierarchy {
            "" => VERSION_2,
            _ => VERSION_1,
        };
        names.extend(every.iter().map(|name| (*name).to_owned()));
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    fn of_controller(&self, controller: &str) -> Vec<String> {
        let defined = self.definitions.iter();
        let mut defined = defined
            .filter(|defined| defined.controller == controller)
            .peekable();
        let usual = of_controller(controller)
            .iter()
            .map(|name| (*name).to_owned());
        let mut names: Vec<String> = match self.instead && defined.peek().is_some() {
            true => Vec::new(),
            false => usual.collect(),
        };
        for defined in defined {
            if defined.replaces {
                names.clear();
            }
            names.extend(defined.properties.iter().cloned());
        }
        names
    }
}

fn quoted(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('"')?.strip_suffix('"')?;
    (!inside.contains('"')).then_some(inside)
}

/// Names of files, in quotes and brackets.
fn list(text: &str) -> Option<Vec<String>> {
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    let names = inside.split(',').map(|name| {
        let name = quoted(name.trim())?;
        let is_plain = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        is_plain.then(|| name.to_owned())
    });
    names.collect()
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
        let of = |hierarchy| Properties::default().of(hierarchy);
        let names = of("pids,devices");
        assert_eq!(names[..2], ["pids.max", "devices.list"]);
        assert_eq!(names.len(), 6);
        assert_eq!(of("name=systemd")[0], "cgroup.clone_children");
        assert_eq!(of("")[0], "cgroup.subtree_control");
    }

    #[test]
    fn others_can_be_defined() {
        let text = "\"pids\":\n - \"strategy\": \"merge\"\n - \"properties\": [\"pids.current\", \"pids.max\"]\n\
            \"devices\":\n - \"strategy\": \"replace\"\n - \"properties\": [\"devices.deny\"]\n";
        let mut properties = Properties::default();
        properties.define(text).unwrap();
        assert_eq!(properties.of("pids")[..2], ["pids.max", "pids.current"]);
        assert_eq!(properties.of("devices")[0], "devices.deny");
        assert_eq!(properties.of("devices").len(), 5);
        assert_eq!(properties.of("")[0], "pids.current");
        assert_eq!(properties.of("memory"), Properties::default().of("memory"));
        properties.instead = true;
        assert_eq!(properties.of("pids")[..2], ["pids.current", "pids.max"]);
        let merged = "\"pids\":\n - \"strategy\": \"merge\"\n - \"properties\": [\"a\"]";
        for (text, line) in [
            ("pids:", 1),
            ("\"pids\":\n - \"strategy\": \"mix\"\n", 2),
            (
                "\"pids\":\n - \"strategy\": \"merge\"\n - \"properties\": [a]\n",
                3,
            ),
            (
                "\"pids\":\n - \"strategy\": \"merge\"\n - \"properties\": [\"../a\"]\n",
                3,
            ),
            (&format!("{merged}\n\n{merged}"), 4),
            ("\"pids\":", 2),
        ] {
            let wrong = Properties::default().define(text).unwrap_err();
            assert_eq!(wrong.line, line, "{text}");
        }
    }

    #[test]
    fn values_are_what_can_be_written() {
        assert_eq!(value("pids.max", b"max\n".to_vec()), b"max");
        let text = b"oom_kill_disable 1\nunder_oom 0\noom_kill 0\n".to_vec();
        assert_eq!(value("memory.oom_control", text), b"1");
    }
}
