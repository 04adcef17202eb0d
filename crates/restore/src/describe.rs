//! A plan in words, for `--dry-run`.

use crate::plan::births::{Step, Who};
use crate::plan::namespaces::mnt::Mounts;
use crate::plan::space::Backing;
use crate::plan::{Life, Plan};

impl Plan {
    /// What a restore would do, a line for each task, area, thread, birth and file.
    pub fn describe(&self) -> impl Iterator<Item = String> {
        let tasks = (0..self.nodes.len()).flat_map(|index| self.describe_task(index));
        let helpers = self.births.helpers.iter().map(|helper| {
            let pid = helper.pid.map_or("any".to_owned(), |pid| pid.to_string());
            let parent = self.nodes[helper.parent].pid;
            format!("helper {pid}: child of {parent}, ends before the tasks run")
        });
        let groups = self.cgroups.hierarchies.iter().flat_map(|hierarchy| {
            hierarchy.groups.iter().map(|group| {
                let path = String::from_utf8_lossy(&group.path);
                format!("cgroup {}:/{path}", hierarchy.name)
            })
        });
        let mounts = self.namespaces.mounts.iter();
        let mounts = mounts.flat_map(Mounts::describe);
        tasks
            .chain(helpers)
            .chain(groups)
            .chain(mounts)
            .chain(self.files.describe())
    }

    fn describe_task(&self, index: usize) -> Vec<String> {
        let node = &self.nodes[index];
        let parent = match node.parent {
            Some(parent) => format!("child of {}", self.nodes[parent].pid),
            None => "root".to_owned(),
        };
        let place = format!("{parent}, group {}, session {}", node.pgid, node.sid);
        let mut lines = Vec::new();
        match &self.lives[index] {
            Life::Zombie { status, .. } => {
                lines.push(format!(
                    "task {}: zombie, {place}, status {status:#x}",
                    node.pid
                ));
            }
            Life::Alive(alive) => {
                let state = match alive.stopped {
                    Some(stop) => format!("stopped by signal {}", stop.signal),
                    None => "running".to_owned(),
                };
                lines.push(format!(
                    "task {}: {state}, {place}, {} threads",
                    node.pid,
                    alive.threads.len()
                ));
                if alive.builds {
                    lines.extend(self.describe_space(alive.space));
                }
            }
        }
        for step in &self.births.steps[index] {
            lines.push(format!("  {}", self.describe_step(*step)));
        }
        lines
    }

    fn describe_step(&self, step: Step) -> String {
        match step {
            Step::SetSid => "setsid".to_owned(),
            Step::Fork { child, flags } => {
                let pid = match child {
                    Who::Task(index) => Some(self.nodes[index].pid),
                    Who::Helper(index) => self.births.helpers[index].pid,
                };
                let pid = pid.map_or("a go-between".to_owned(), |pid| pid.to_string());
                format!("clone3 {pid}, flags {flags:#x}")
            }
        }
    }

    fn describe_space(&self, index: usize) -> Vec<String> {
        let space = &self.spaces[index];
        let pages = space.pagemap.pages();
        let mut lines = vec![format!(
            "  address space: {} areas, {pages} pages from pages-{}",
            space.areas.len(),
            space.pagemap.pages_id
        )];
        lines.extend(space.areas.iter().map(|area| {
            let backing = match area.backing {
                Backing::Anonymous => String::new(),
                Backing::Segment { id, offset, .. } => {
                    format!(", segment {id} from {offset:#x}")
                }
                Backing::File { id, offset, .. } => format!(", file {id} from {offset:#x}"),
            };
            format!(
                "  mmap {:#x}-{:#x} prot {} flags {:#x}{backing}",
                area.range.start, area.range.end, area.prot, area.flags
            )
        }));
        lines
    }
}
