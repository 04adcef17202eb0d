//! What `/proc` shows of a process tree, as names and texts that can be compared.

use crate::process::{children, descendants};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

/// Names and texts.
pub type Facts = BTreeMap<String, String>;

/// One process: what it has as a whole, and what each of its threads has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFacts {
    /// The process's own.
    pub process: Facts,
    /// By thread id.
    pub threads: BTreeMap<i32, Facts>,
}

/// A process tree as `/proc` shows it: by process id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every process of the tree.
    pub tasks: BTreeMap<i32, TaskFacts>,
}

/// Fields of `status` that belong to a thread.
const THREAD_STATUS: [&str; 18] = [
    "Name",
    "Uid",
    "Gid",
    "Groups",
    "SigPnd",
    "SigBlk",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Cpus_allowed",
    "Mems_allowed",
    "Umask",
    "NSpid",
];

/// Fields of `status` that belong to a process.
const PROCESS_STATUS: [&str; 10] = [
    "Tgid",
    "NStgid",
    "NSpgid",
    "NSsid",
    "ShdPnd",
    "SigIgn",
    "SigCgt",
    "Threads",
    "THP_enabled",
    "VmLck",
];

/// Positions in `stat` behind the name, and what is there.
const STAT: [(usize, &str); 21] = [
    (1, "parent"),
    (2, "group"),
    (3, "session"),
    (4, "terminal"),
    (5, "terminal group"),
    (15, "priority"),
    (16, "nice"),
    (23, "start of code"),
    (24, "end of code"),
    (25, "start of stack"),
    (35, "exit signal"),
    (37, "real-time priority"),
    (38, "policy"),
    (42, "start of data"),
    (43, "end of data"),
    (44, "start of brk"),
    (45, "start of arguments"),
    (46, "end of arguments"),
    (47, "start of environment"),
    (48, "end of environment"),
    (49, "exit code"),
];

/// Facts of a process that has ended.
const OF_ZOMBIES: [&str; 7] = [
    "parent",
    "group",
    "session",
    "exit signal",
    "exit code",
    "state",
    "Tgid",
];

/// Files of a process that are compared as they are.
const FILES: [&str; 8] = [
    "limits",
    "oom_score_adj",
    "coredump_filter",
    "personality",
    "cmdline",
    "environ",
    "timers",
    "uid_map",
];

/// Links of a process.
const LINKS: [&str; 10] = [
    "exe",
    "cwd",
    "root",
    "ns/mnt",
    "ns/net",
    "ns/pid",
    "ns/user",
    "ns/uts",
    "ns/ipc",
    "ns/cgroup",
];

impl Snapshot {
    /// Looks at a process and all its descendants, and past these flags of mappings (`VmFlags`).
    ///
    /// # Errors
    ///
    /// A process that is not there, or ends while it is looked at.
    pub fn take(root: i32, past: &[&str]) -> Result<Self> {
        let mut inodes = Inodes::default();
        let tasks = descendants(root).into_iter().map(|pid| {
            let facts =
                task(pid, &mut inodes, past).with_context(|| format!("look at process {pid}"))?;
            Ok((pid, facts))
        });
        Ok(Self {
            tasks: tasks.collect::<Result<_>>()?,
        })
    }

    /// Leaves out facts whose name begins with one of these words, for guests that change them themselves.
    #[must_use]
    pub fn without(mut self, names: &[&str]) -> Self {
        let keep = |facts: &mut Facts| {
            facts.retain(|name, _| !names.iter().any(|word| name.starts_with(word)))
        };
        for task in self.tasks.values_mut() {
            keep(&mut task.process);
            task.threads.values_mut().for_each(keep);
        }
        self
    }
}

/// Numbers for pipes, sockets and other nameless files, in the order in which they are met: their own
/// numbers differ after a restore, what is the same object must not. Files made without a name
/// (`O_TMPFILE`) are called by theirs, too.
#[derive(Default)]
struct Inodes(BTreeMap<String, usize>);

impl Inodes {
    fn normal(&mut self, link: &str) -> String {
        let Some((kind, _number)) = nameless(link) else {
            return link.to_owned();
        };
        let next = self.0.len();
        let number = *self.0.entry(link.to_owned()).or_insert(next);
        format!("{kind} {number}")
    }
}

/// What a nameless file is, and its number.
fn nameless(link: &str) -> Option<(&str, u64)> {
    let (kind, rest) = match link.strip_suffix(" (deleted)") {
        Some(path) => path.split_once('#').filter(|(dir, _)| dir.ends_with('/'))?,
        None => {
            let (kind, rest) = link.strip_suffix(']')?.split_once(":[")?;
            (["pipe", "socket"].contains(&kind)).then_some((kind, rest))?
        }
    };
    Some((kind, rest.parse().ok()?))
}

fn task(pid: i32, inodes: &mut Inodes, past: &[&str]) -> Result<TaskFacts> {
    let base = format!("/proc/{pid}");
    let mut process = Facts::new();
    fields(&mut process, &format!("{base}/status"), &PROCESS_STATUS)?;
    stat(&mut process, &format!("{base}/stat"))?;
    for name in FILES {
        if let Ok(bytes) = fs::read(format!("{base}/{name}")) {
            process.insert(
                name.to_owned(),
                String::from_utf8_lossy(&bytes)
                    .replace('\0', " ")
                    .trim()
                    .to_owned(),
            );
        }
    }
    if let Ok(groups) = fs::read_to_string(format!("{base}/cgroup")) {
        // Hierarchies without a controller may come and go on the machine meanwhile.
        let lines = groups.lines().filter(|line| !line.contains(":name="));
        process.insert("cgroup".into(), lines.collect::<Vec<_>>().join("\n"));
    }
    if let Ok(auxv) = fs::read(format!("{base}/auxv")) {
        let words = auxv.chunks(8).map(|word| {
            word.iter()
                .rev()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        });
        process.insert("auxv".into(), words.collect::<Vec<_>>().join(" "));
    }
    for name in LINKS {
        if let Ok(link) = fs::read_link(format!("{base}/{name}")) {
            process.insert(name.to_owned(), link.display().to_string());
        }
    }
    descriptors(&mut process, &base, inodes);
    if let Ok(smaps) = fs::read_to_string(format!("{base}/smaps")) {
        process.insert("maps".into(), mappings(&smaps, past));
    }
    if process.get("state").is_some_and(|state| state == "zombie") {
        // What it was does not matter any more: only what its parent will learn.
        process.retain(|name, _| OF_ZOMBIES.contains(&name.as_str()));
        return Ok(TaskFacts {
            process,
            threads: BTreeMap::new(),
        });
    }
    let mut below = children(pid);
    below.sort_unstable();
    process.insert("children".into(), format!("{below:?}"));
    Ok(TaskFacts {
        process,
        threads: threads(&base)?,
    })
}

fn threads(base: &str) -> Result<BTreeMap<i32, Facts>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("{base}/task"))? {
        let path = entry?.path();
        let base = path.display();
        let tid = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .parse()?;
        let mut facts = Facts::new();
        fields(&mut facts, &format!("{base}/status"), &THREAD_STATUS)?;
        let mut all = Facts::new();
        stat(&mut all, &format!("{base}/stat"))?;
        facts.extend(all.into_iter().filter(|(name, _)| {
            ["priority", "nice", "policy", "real-time priority", "state"].contains(&name.as_str())
        }));
        if let Ok(slack) = fs::read_to_string(format!("/proc/{tid}/timerslack_ns")) {
            facts.insert("timer slack".into(), slack.trim().to_owned());
        }
        threads.insert(tid, facts);
    }
    Ok(threads)
}

/// Adds the named fields of a `status` file.
fn fields(facts: &mut Facts, path: &str, names: &[&str]) -> Result<()> {
    let text = fs::read_to_string(path)?;
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        if names.contains(&name) {
            facts.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    Ok(())
}

/// Adds what is compared of a `stat` file.
fn stat(facts: &mut Facts, path: &str) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let rest = text
        .rsplit_once(") ")
        .map(|(_, rest)| rest)
        .context("no name in stat")?;
    let values: Vec<&str> = rest.split_whitespace().collect();
    for (index, name) in STAT {
        facts.insert(
            name.to_owned(),
            (*values.get(index).unwrap_or(&"?")).to_owned(),
        );
    }
    // Running, sleeping and waiting are a matter of the moment.
    let state = match values.first() {
        Some(&"Z") => "zombie",
        Some(&"T" | &"t") => "stopped",
        _ => "live",
    };
    facts.insert("state".into(), state.into());
    Ok(())
}

/// Adds every descriptor: what it points to, its flags and position.
fn descriptors(facts: &mut Facts, base: &str, inodes: &mut Inodes) {
    let mut numbers: Vec<i32> = fs::read_dir(format!("{base}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    for number in numbers {
        let link = fs::read_link(format!("{base}/fd/{number}"))
            .map(|link| link.display().to_string())
            .unwrap_or_default();
        let info = fs::read_to_string(format!("{base}/fdinfo/{number}")).unwrap_or_default();
        let mut text = inodes.normal(&link);
        for line in description(&info) {
            let _ = write!(text, ", {line}");
        }
        facts.insert(format!("fd {number:04}"), text);
    }
}

/// The lines of `fdinfo` that are to be the same again. Numbers that the kernel gives out are not, nor is time left;
/// what an epoll set watches comes in the order of addresses in the kernel.
fn description(info: &str) -> Vec<String> {
    const PASSING: [&str; 6] = [
        "mnt_id:",
        "ino:",
        "eventfd-id:",
        "it_value:",
        "f_handle:",
        "map_id:",
    ];
    let passing = |text: &&str| PASSING.iter().any(|past| text.starts_with(past));
    let words = |line: &str| -> Vec<String> {
        let words = line.split_whitespace();
        words
            .filter(|word| !passing(word))
            .map(str::to_owned)
            .collect()
    };
    let lines = info.lines().filter(|line| !passing(line));
    let (mut watched, mut lines): (Vec<String>, Vec<String>) = lines
        .map(|line| words(line).join(" "))
        .partition(|line| line.starts_with("tfd:"));
    watched.sort_unstable();
    lines.append(&mut watched);
    lines
}

/// One mapping of `smaps`.
#[derive(PartialEq)]
struct Mapping {
    from: u64,
    to: u64,
    offset: u64,
    /// Permissions, path, key and flags: what makes mappings alike.
    kind: String,
    file: bool,
}

/// Mappings one a line; neighbours that differ in nothing are one, as the kernel may merge them or not.
fn mappings(smaps: &str, past: &[&str]) -> String {
    let mut all: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        if let Some(mapping) = header(line) {
            all.push(mapping);
        } else if let (Some(key), Some(last)) =
            (line.strip_prefix("ProtectionKey:"), all.last_mut())
        {
            let _ = write!(last.kind, " {}", key.trim());
        } else if let (Some(flags), Some(last)) = (line.strip_prefix("VmFlags:"), all.last_mut()) {
            let flags: Vec<&str> = flags
                .split_whitespace()
                .filter(|flag| !past.contains(flag))
                .collect();
            let _ = write!(last.kind, " [{}]", flags.join(" "));
        }
    }
    let mut merged: Vec<Mapping> = Vec::new();
    for next in all {
        match merged.last_mut() {
            Some(last)
                if last.to == next.from
                    && last.kind == next.kind
                    && (!next.file || last.offset + (last.to - last.from) == next.offset) =>
            {
                last.to = next.to;
            }
            _ => merged.push(next),
        }
    }
    let line = |m: Mapping| {
        format!(
            "{:x}-{:x} {:x} {}\n",
            m.from,
            m.to,
            if m.file { m.offset } else { 0 },
            m.kind
        )
    };
    merged.into_iter().map(line).collect()
}

/// The first line of a mapping: range, permissions, offset, device, inode, path.
fn header(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (from, to) = (number(from)?, number(to)?);
    let permissions = words.next()?;
    let offset = number(words.next()?)?;
    let (_device, inode) = (words.next()?, words.next()?);
    let path = words.collect::<Vec<_>>().join(" ");
    Some(Mapping {
        from,
        to,
        offset,
        kind: format!("{permissions} {path}"),
        file: inode != "0",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_merged_by_kind_and_offset() {
        let smaps = "1000-2000 rw-p 00000000 00:00 0 \nVmFlags: rd wr sd\n2000-3000 rw-p 00000000 00:00 0 \nVmFlags: rd wr\n\
                     3000-4000 r--p 00001000 08:01 5 /bin/x\nVmFlags: rd\n4000-5000 r--p 00002000 08:01 5 /bin/x\nVmFlags: rd\n\
                     5000-6000 r--p 00009000 08:01 5 /bin/x\nVmFlags: rd\n";
        assert_eq!(
            mappings(smaps, &["sd"]),
            "1000-3000 0 rw-p  [rd wr]\n3000-5000 1000 r--p /bin/x [rd]\n5000-6000 9000 r--p /bin/x [rd]\n"
        );
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let pid = std::process::id().cast_signed();
        let snapshot = Snapshot::take(pid, &[]).unwrap();
        let facts = &snapshot.tasks[&pid];
        assert_eq!(facts.process["Tgid"], pid.to_string());
        assert!(facts.threads.contains_key(&pid));
        assert!(facts.process["maps"].contains("[vdso]"));
    }

    #[test]
    fn nameless_files_are_numbered_as_they_come() {
        let mut inodes = Inodes::default();
        let links = [
            "pipe:[77]",
            "/a",
            "pipe:[12]",
            "pipe:[77]",
            "/d/#8 (deleted)",
            "/d/#b",
        ];
        assert_eq!(
            links.map(|link| inodes.normal(link)),
            ["pipe 0", "/a", "pipe 1", "pipe 0", "/d/ 2", "/d/#b"]
        );
    }
}
