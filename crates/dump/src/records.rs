//! The records of tasks, collected first and written later: `ids`, `core`, `mm`, `fs`, `fdinfo`.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

use gelid_image::messages::{CoreEntry, FdinfoEntry, FsEntry, March, MmEntry, TaskCoreEntry};
use gelid_image::{ImageKind, Staging};
use gelid_pages::Owner;
use gelid_sys::{Pid, pidfd, proc};

use crate::core::Cores;
use crate::files::{self, Collector};
use crate::ids::Namespaces;
use crate::pages::Stored;
use crate::survey::{Live, Space, Task};
use crate::{Error, fs, inventory, kinship, mm};

/// What has been found out about descriptors and mappings.
pub(crate) struct Records {
    /// Of each task, `None` for a zombie.
    tasks: Vec<Option<Record>>,
    /// Descriptor tables by their ids.
    tables: Vec<(u32, Vec<FdinfoEntry>)>,
}

struct Record {
    fs: FsEntry,
    /// `None` if it is another's, whose place is in [`Space::Of`].
    mm: Option<MmEntry>,
}

impl Records {
    /// Asks about everything that is open or mapped.
    pub(crate) fn collect(
        tasks: &[Task],
        cores: &[Cores],
        files: &mut Collector<'_>,
    ) -> Result<Self, Error> {
        let mut records = Self {
            tasks: Vec::with_capacity(tasks.len()),
            tables: Vec::new(),
        };
        let mut tables = HashSet::new();
        let mut cores = cores.iter();
        for task in tasks {
            let record = match &task.live {
                Some(live) => {
                    let cores = cores.next().ok_or(Error::Uncounted { pid: task.pid })?;
                    let is_new = tables.insert(live.ids.files_id);
                    Some(records.task(task, live, cores, is_new, files)?)
                }
                None => None,
            };
            records.tasks.push(record);
        }
        Ok(records)
    }

    fn task(
        &mut self,
        task: &Task,
        live: &Live,
        cores: &Cores,
        has_new_table: bool,
        files: &mut Collector<'_>,
    ) -> Result<Record, Error> {
        let pid = task.pid;
        let pidfd = pidfd::open(pid).map_err(|errno| Error::Pidfd { pid, errno })?;
        let held = files::Task {
            pid,
            dir: &proc::task_dir(pid)?,
            pidfd: pidfd.as_fd(),
        };
        if has_new_table {
            self.tables.push((live.ids.files_id, files.table(held)?));
        }
        let mm = match &live.space {
            Space::Own(layout) => Some(mm::entry(task, layout, cores, held, files)?),
            Space::Of(_) => None,
        };
        let fs = fs::entry(files, held, &live.status)?;
        Ok(Record { fs, mm })
    }

    /// Writes everything but pages.
    pub(crate) fn write(
        mut self,
        staging: &Staging,
        tasks: &[Task],
        cores: &[Cores],
        pages: &[Stored],
        namespaces: &Namespaces,
    ) -> Result<(), Error> {
        kinship::write(staging, tasks)?;
        self.add_guards(tasks, pages);
        for (task, record) in tasks.iter().zip(&self.tasks) {
            match (&task.live, record) {
                (Some(live), Some(record)) => self.write_task(staging, task.pid, live, record)?,
                _ => staging.put(ImageKind::Core, task.pid.as_raw_pid(), &zombie(task))?,
            }
        }
        for cores in cores {
            staging.put(ImageKind::Core, cores.pid.as_raw_pid(), &cores.leader)?;
            for (tid, core) in &cores.threads {
                staging.put(ImageKind::Core, tid.as_raw_pid(), core)?;
            }
        }
        for (files_id, table) in &self.tables {
            let mut writer = staging.writer(ImageKind::Fdinfo, *files_id)?;
            // The image of an empty table is there too.
            writer.touch()?;
            for entry in table {
                writer.push(entry)?;
            }
            writer.finish()?;
        }
        inventory::write(staging, namespaces)
    }

    fn add_guards(&mut self, tasks: &[Task], pages: &[Stored]) {
        let guarded = pages
            .iter()
            .filter(|stored| !stored.guards.is_empty())
            .map(|stored| (stored.owner, stored.guards.as_slice()));
        let guarded: HashMap<_, _> = guarded.collect();
        for (task, record) in tasks.iter().zip(&mut self.tasks) {
            let owner = Owner::Task(task.pid.as_raw_pid());
            if let Some(Record { mm: Some(mm), .. }) = record
                && let Some(guards) = guarded.get(&owner)
            {
                mm::add_guards(mm, guards);
            }
        }
    }

    fn write_task(
        &self,
        staging: &Staging,
        pid: Pid,
        live: &Live,
        record: &Record,
    ) -> Result<(), Error> {
        let key = pid.as_raw_pid();
        staging.put(ImageKind::Ids, key, &live.ids)?;
        staging.put(ImageKind::Fs, key, &record.fs)?;
        let mm = match &live.space {
            Space::Own(_) => record.mm.as_ref(),
            Space::Of(first) => self.tasks[*first].as_ref().and_then(|own| own.mm.as_ref()),
        };
        if let Some(mm) = mm {
            staging.put(ImageKind::Mm, key, mm)?;
        }
        Ok(())
    }
}

/// What is left of a process that has ended. Section 7.1 of the format.
fn zombie(task: &Task) -> CoreEntry {
    /// `task_state` of a zombie.
    const DEAD: u32 = 2;
    CoreEntry {
        mtype: March::X86_64.into(),
        tc: Some(TaskCoreEntry {
            task_state: DEAD,
            // The bits of a wait status.
            exit_code: task.stat.exit_code.cast_unsigned(),
            flags: task.stat.flags,
            comm: task.stat.comm.clone(),
            ..TaskCoreEntry::default()
        }),
        ..CoreEntry::default()
    }
}
