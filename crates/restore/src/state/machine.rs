//! What this process has, and so what its freshly born children have, against which states are compared.

use std::cell::OnceCell;

use gelid_sys::arch::XLayout;
use gelid_sys::lsm::{self, Module};
use gelid_sys::proc::limits::{COUNT, Limit};
use gelid_sys::proc::{self, TaskDir};
use gelid_sys::sched::CpuSet;
use gelid_sys::{prctl, sched};
use rustix::process::getpid;
use rustix::thread::capabilities_secure_bits;

use super::Error;
use super::creds::Creds;
use super::limits::SYS_RESOURCE;

/// `CAP_SYS_CHROOT`
const SYS_CHROOT: u64 = 1 << 18;

/// This process and the machine it runs on.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Credentials.
    pub(crate) creds: Creds,
    /// Seccomp mode, which children have too.
    pub(crate) seccomp: u32,
    /// Resource limits by number.
    pub(crate) limits: [Limit; COUNT],
    pub(crate) affinity: CpuSet,
    /// Nice value, policy and real-time priority.
    pub(crate) nice: i32,
    pub(crate) policy: u32,
    pub(crate) io_priority: u16,
    pub(crate) timer_slack: u64,
    pub(crate) personality: u32,
    /// How readily it is killed, and what of it goes to a core dump; none where that is not told.
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) coredump_filter: Option<u64>,
    /// The audit user; none without auditing.
    pub(crate) login_uid: Option<u32>,
    /// Where the processor has the components of its extended state.
    pub(crate) xstate: XLayout,
    /// The extended state of some thread, as the kernel lays it out.
    pub(crate) area: OnceCell<Vec<u8>>,
    /// Whether timers can be made with the id that is wanted.
    pub(crate) timer_ids: bool,
    /// The rights of the credentials are those of a user namespace.
    pub(crate) is_inside: bool,
    /// What tasks have that are in user namespaces below that of the root.
    below: Option<Box<Self>>,
    /// Users and groups are set before anything else of the credentials.
    pub(crate) has_users: bool,
    /// The security module whose labels tasks have.
    pub(crate) lsm: Option<Module>,
    /// Hard limits can be raised.
    pub(crate) raises_limits: bool,
    /// Root directories can be changed.
    pub(crate) changes_roots: bool,
}

impl Machine {
    /// Looks at this process.
    pub(crate) fn look() -> Result<Self, Error> {
        let own = |what| move |errno| Error::Own { what, errno };
        let task = TaskDir::open(getpid())?;
        let status = proc::status::read(&task)?;
        let secure_bits = capabilities_secure_bits().map_err(own("the secure bits"))?;
        let attr = sched::getattr(None).map_err(own("the scheduling policy"))?;
        let creds = Creds::of(&status, secure_bits.bits());
        Ok(Self {
            is_inside: false,
            below: None,
            has_users: false,
            lsm: lsm::active(),
            raises_limits: creds.has(SYS_RESOURCE),
            changes_roots: creds.has(SYS_CHROOT),
            creds,
            seccomp: status.seccomp,
            limits: sched::limits(None).map_err(own("the limits"))?,
            affinity: sched::affinity(None).map_err(own("the processors"))?,
            nice: attr.nice,
            policy: attr.policy,
            io_priority: sched::ioprio(None).map_err(own("the I/O priority"))?,
            timer_slack: prctl::timer_slack().map_err(own("the timer slack"))?,
            personality: sched::personality(),
            oom_score_adj: proc::scalar::oom_score_adj(&task).ok(),
            coredump_filter: proc::scalar::coredump_filter(&task).ok().flatten(),
            login_uid: proc::scalar::loginuid(&task).ok(),
            xstate: XLayout::look(),
            area: OnceCell::new(),
            timer_ids: prctl::timer_restore_ids().is_ok(),
        })
    }

    /// Tasks are born in a user namespace, as this user, with this group and these groups. Nobody there may change what
    /// is beyond it.
    pub(crate) fn enter_users(&mut self, ids: (u32, u32, Vec<u32>)) -> Result<(), Error> {
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
        let last = last.ok().and_then(|text| text.trim().parse::<u32>().ok());
        let what = "the last capability";
        let last = last.filter(|last| *last < 64).ok_or(Error::Own {
            what,
            errno: gelid_sys::Errno::INVAL,
        })?;
        let all = u64::MAX >> (63 - last);
        self.creds = Creds::of_first(ids, &self.creds, all);
        self.is_inside = true;
        self.changes_roots = true;
        Ok(())
    }

    /// Tasks enter user namespaces below that of the root, as those users that they are to be.
    pub(crate) fn enter_below(&mut self) -> Result<(), Error> {
        let mut below = self.clone();
        below.enter_users((0, 0, Vec::new()))?;
        below.has_users = true;
        self.below = Some(Box::new(below));
        Ok(())
    }

    /// What a task has, by its user namespace.
    pub(crate) fn of(&self, users: Option<u32>) -> &Self {
        let below = self.below.as_deref().filter(|_| users.is_some());
        below.unwrap_or(self)
    }
}
