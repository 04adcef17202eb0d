//! Credentials of a thread: `credentials(7)`, `capabilities(7)`.

mod users;

use gelid_image::messages::CredsEntry;
use gelid_sys::lsm::{self, Module};
use gelid_sys::prctl::{
    PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_CAP_AMBIENT_RAISE, PR_CAPBSET_DROP,
    PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS, PR_SET_SECUREBITS,
};
use gelid_sys::proc::status::{Caps, Status};
use gelid_sys::syscall::nr;
use gelid_tape::{Arg, Tape};

pub(crate) use self::users::Inside;
use super::{Error, Machine};
use crate::LsmProfile;

/// Most groups a task can have (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65536;
/// Keeps capabilities over changes of user ids (`SECBIT_NO_SETUID_FIXUP`).
const NO_SETUID_FIXUP: u32 = 1 << 2;
/// `SECBIT_KEEP_CAPS`
const KEEP_CAPS: u32 = 1 << 4;
/// `O_WRONLY | O_CLOEXEC`
const WRONLY: u32 = 0o2_000_001;
/// All secure bits that there are, with their locks.
const SECURE_BITS: u32 = 0xfff;
/// `_LINUX_CAPABILITY_VERSION_3`
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Credentials, as the thread itself sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Creds {
    /// Real, effective, saved, filesystem.
    uids: [u32; 4],
    gids: [u32; 4],
    groups: Vec<u32>,
    secure_bits: u32,
    caps: Caps,
    no_new_privs: bool,
    /// Of a security module.
    label: Option<Label>,
}

/// The label of a security module.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    module: Option<Module>,
    text: String,
    /// Of sockets that the thread makes, if that is another.
    sockets: Option<String>,
}

impl Label {
    /// Appends what gives it to the thread that plays the tape.
    fn write(&self, tape: &mut Tape) {
        let Some(module) = self.module else { return };
        let own = lsm::request(module, &self.text);
        let files = [
            (c"/proc/thread-self/attr/current", Some(&own)),
            (c"/proc/thread-self/attr/sockcreate", self.sockets.as_ref()),
        ];
        for (file, text) in files {
            let Some(text) = text else { continue };
            let name = tape.bytes(file.to_bytes_with_nul());
            let data = tape.bytes(text.as_bytes());
            let fd = tape.must(nr::open, [name.into(), u64::from(WRONLY).into(), 0.into()]);
            let len = text.len() as u64;
            tape.must(nr::write, [Arg::Result(fd), data.into(), len.into()]);
            tape.must(nr::close, [Arg::Result(fd)]);
        }
    }
}

impl Creds {
    /// Those that a status tells of.
    pub(crate) fn of(status: &Status, secure_bits: u32) -> Self {
        Self {
            uids: status.uid,
            gids: status.gid,
            groups: status.groups.clone(),
            secure_bits,
            caps: status.caps,
            no_new_privs: status.no_new_privs,
            label: None,
        }
    }

    /// Those of somebody in a user namespace who may do everything there.
    pub(super) fn of_first(
        (uid, gid, groups): (u32, u32, Vec<u32>),
        before: &Self,
        all: u64,
    ) -> Self {
        Self {
            uids: [uid; 4],
            gids: [gid; 4],
            groups,
            secure_bits: 0,
            caps: Caps {
                permitted: all,
                effective: all,
                bounding: all,
                ..Caps::default()
            },
            no_new_privs: before.no_new_privs,
            label: None,
        }
    }

    /// Decides about the label, which is one of `module` if it was recorded.
    pub(super) fn label(&mut self, module: Option<Module>, wanted: Option<&LsmProfile>) {
        match wanted {
            None => {
                if let Some(label) = &mut self.label {
                    label.module = module;
                }
            }
            Some(LsmProfile::None) => self.label = None,
            Some(LsmProfile::Of(module, text)) => {
                self.label = Some(Label {
                    module: Some(*module),
                    text: text.clone(),
                    sockets: None,
                });
            }
        }
    }

    /// Supplementary groups.
    pub(super) fn groups(&self) -> &[u32] {
        &self.groups
    }

    pub(super) fn read(tid: i32, entry: &CredsEntry) -> Result<Self, Error> {
        let wrong = |what| Error::Wrong { tid, what };
        if entry.groups.len() > GROUPS_MAX {
            return Err(wrong("there are more groups than a task can have"));
        }
        if entry.secbits & !SECURE_BITS != 0 {
            return Err(wrong("there are secure bits that no kernel has"));
        }
        let set = |words: &[u32]| match *words {
            [] => Ok(0),
            [low] => Ok(u64::from(low)),
            [low, high] => Ok(u64::from(high) << 32 | u64::from(low)),
            _ => Err(wrong("a capability set has more than two words")),
        };
        let caps = Caps {
            inheritable: set(&entry.cap_inh)?,
            permitted: set(&entry.cap_prm)?,
            effective: set(&entry.cap_eff)?,
            bounding: set(&entry.cap_bnd)?,
            ambient: set(&entry.cap_amb)?,
        };
        if caps.effective & !caps.permitted != 0
            || caps.ambient & !(caps.permitted & caps.inheritable) != 0
        {
            return Err(wrong("the capability sets contradict each other"));
        }
        let mut groups = entry.groups.clone();
        groups.sort_unstable();
        Ok(Self {
            uids: [entry.uid, entry.euid, entry.suid, entry.fsuid],
            gids: [entry.gid, entry.egid, entry.sgid, entry.fsgid],
            groups,
            secure_bits: entry.secbits,
            caps,
            no_new_privs: entry.no_new_privs.is_some_and(|value| value != 0),
            label: entry.lsm_profile.clone().map(|text| Label {
                module: None,
                text,
                sockets: entry.lsm_sockcreate.clone(),
            }),
        })
    }

    /// Capabilities can be given up, not won.
    pub(super) fn check(&self, tid: i32, machine: &Machine) -> Result<(), Error> {
        let own = &machine.creds.caps;
        for (set, wanted, have) in [
            ("permitted", self.caps.permitted, own.permitted),
            ("bounding", self.caps.bounding, own.bounding),
            (
                "inheritable",
                self.caps.inheritable,
                own.inheritable | own.bounding,
            ),
        ] {
            let missing = wanted & !have;
            if missing != 0 {
                let names = names(missing);
                return Err(Error::Capability { tid, set, names });
            }
        }
        if let Some(label) = &self.label
            && (label.module.is_none() || label.module != machine.lsm)
        {
            let module = label
                .module
                .map_or("none".into(), |module| module.to_string());
            return Err(Error::Label {
                tid,
                label: label.text.clone(),
                module,
            });
        }
        if machine.creds.no_new_privs && !self.no_new_privs {
            let (what, remedy) = (
                "its freedom from no_new_privs",
                "restore by a process that has not set no_new_privs",
            );
            return Err(Error::Unsupported { tid, what, remedy });
        }
        Ok(())
    }

    /// Changes credentials from those of a child of this process; the last thing a thread does.
    pub(super) fn write(&self, tape: &mut Tape, machine: &Machine) {
        let own = &machine.creds;
        let ids = !machine.has_users
            && (self.uids, self.gids, &self.groups) != (own.uids, own.gids, &own.groups);
        let caps = self.caps != own.caps || self.secure_bits != own.secure_bits;
        if ids || caps {
            // Until the end everything stays permitted that is.
            let fixup = if ids { NO_SETUID_FIXUP } else { 0 };
            let now = own.secure_bits | fixup;
            if now != own.secure_bits {
                prctl(tape, PR_SET_SECUREBITS, now.into(), 0);
            }
            if ids {
                self.write_ids(tape, own);
            }
            self.write_caps(tape, own, now);
        }
        if let Some(label) = &self.label {
            label.write(tape);
        }
        if self.no_new_privs && !own.no_new_privs {
            prctl(tape, PR_SET_NO_NEW_PRIVS, 1, 0);
        }
    }

    fn write_ids(&self, tape: &mut Tape, own: &Self) {
        if self.groups != own.groups {
            let bytes: Vec<u8> = self.groups.iter().flat_map(|id| id.to_ne_bytes()).collect();
            let data = tape.bytes(&bytes);
            tape.must(
                nr::setgroups,
                [(self.groups.len() as u64).into(), data.into()],
            );
        }
        let three = |[real, effective, saved, _]: [u32; 4]| {
            [real, effective, saved].map(|id| Arg::Value(id.into()))
        };
        // Setting the effective id sets that of the filesystem too. The calls for the latter tell nothing.
        if self.gids != own.gids {
            tape.must(nr::setresgid, three(self.gids));
            if self.gids[3] != self.gids[1] {
                tape.call(nr::setfsgid, [u64::from(self.gids[3]).into()]);
            }
        }
        if self.uids != own.uids {
            tape.must(nr::setresuid, three(self.uids));
            if self.uids[3] != self.uids[1] {
                tape.call(nr::setfsuid, [u64::from(self.uids[3]).into()]);
            }
        }
    }

    /// With the capability to do so: the inheritable set, which may go beyond the bounding set that is next;
    /// then ambient ones and secure bits; at last that capability goes, if it is to go.
    fn write_caps(&self, tape: &mut Tape, own: &Self, bits_now: u32) {
        let all = own.caps.permitted;
        capset(tape, all, all, self.caps.inheritable);
        for capability in bits(own.caps.bounding & !self.caps.bounding) {
            prctl(tape, PR_CAPBSET_DROP, capability, 0);
        }
        if own.caps.ambient & !self.caps.ambient != 0 {
            prctl(tape, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0);
        }
        for capability in bits(self.caps.ambient) {
            prctl(tape, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability);
        }
        match self.secure_bits ^ bits_now {
            0 => {}
            // It takes no rights.
            KEEP_CAPS => {
                let keeps = u64::from(self.secure_bits & KEEP_CAPS != 0);
                prctl(tape, PR_SET_KEEPCAPS, keeps, 0);
            }
            _ => prctl(tape, PR_SET_SECUREBITS, self.secure_bits.into(), 0),
        }
        if (self.caps.effective, self.caps.permitted) != (all, all) {
            capset(
                tape,
                self.caps.effective,
                self.caps.permitted,
                self.caps.inheritable,
            );
        }
    }

    /// Whether all capabilities of a set are effective.
    pub(super) fn has(&self, set: u64) -> bool {
        self.caps.effective & set == set
    }

    #[cfg(test)]
    pub(super) fn drop_all(&mut self) {
        self.caps = Caps::default();
    }
}

fn prctl(tape: &mut Tape, option: u64, first: u64, second: u64) {
    let args = [option, first, second, 0, 0].map(Arg::Value);
    tape.must(nr::prctl, args);
}

fn capset(tape: &mut Tape, effective: u64, permitted: u64, inheritable: u64) {
    let sets = [effective, permitted, inheritable];
    let words = sets
        .map(|set| set as u32)
        .into_iter()
        .chain(sets.map(|set| (set >> 32) as u32));
    let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
    let data = tape.bytes(&bytes);
    let mut header = [0; 8];
    header[..4].copy_from_slice(&CAPABILITY_VERSION.to_ne_bytes());
    let header = tape.bytes(&header);
    tape.must(nr::capset, [header.into(), data.into()]);
}

fn bits(set: u64) -> impl Iterator<Item = u64> {
    (0..64).filter(move |bit| set & 1 << bit != 0)
}

/// Names of capabilities, as `capabilities(7)` has them.
fn names(set: u64) -> String {
    const NAMES: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    let name = |bit: u64| match NAMES.get(bit as usize) {
        Some(name) => format!("CAP_{name}"),
        None => format!("capability {bit}"),
    };
    bits(set).map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_another_module_are_refused_or_left_out() {
        let mut machine = Machine::look().unwrap();
        let mut own = machine.creds.clone();
        own.label = Some(Label {
            module: None,
            text: "profile".into(),
            sockets: None,
        });
        own.label(Some(Module::Selinux), None);
        machine.lsm = Some(Module::Selinux);
        own.check(7, &machine).unwrap();
        machine.lsm = None;
        let refused = own.check(7, &machine).unwrap_err().to_string();
        assert!(refused.contains("\"profile\" of SELinux"), "{refused}");
        let mut tape = Tape::new();
        own.write(&mut tape, &machine);
        assert_eq!(tape.len(), 3);
        let wanted = LsmProfile::Of(Module::AppArmor, "other".into());
        own.label(Some(Module::Selinux), Some(&wanted));
        own.check(7, &machine).unwrap_err();
        own.label(Some(Module::Selinux), Some(&LsmProfile::None));
        own.check(7, &machine).unwrap();
    }

    fn entry() -> CredsEntry {
        CredsEntry {
            uid: 1,
            euid: 2,
            suid: 3,
            fsuid: 4,
            cap_inh: vec![0, 1],
            cap_prm: vec![1, 1],
            cap_eff: vec![1, 0],
            cap_bnd: vec![u32::MAX, 0x1ff],
            cap_amb: vec![0, 1],
            groups: vec![9, 3],
            no_new_privs: Some(1),
            ..Default::default()
        }
    }

    #[test]
    fn an_entry_is_read() {
        let creds = Creds::read(1, &entry()).unwrap();
        assert_eq!(creds.uids, [1, 2, 3, 4]);
        assert_eq!(creds.groups, [3, 9]);
        assert_eq!(creds.caps.permitted, 1 << 32 | 1);
        assert_eq!(creds.caps.bounding, (1 << 41) - 1);
        assert!(creds.no_new_privs);
    }

    #[test]
    fn contradictions_are_refused() {
        let cases: [fn(&mut CredsEntry); 4] = [
            |entry| entry.cap_eff = vec![2, 0],
            |entry| entry.cap_amb = vec![1, 0],
            |entry| entry.cap_inh = vec![0, 0, 0],
            |entry| entry.secbits = 1 << 20,
        ];
        for spoil in cases {
            let mut entry = entry();
            spoil(&mut entry);
            assert!(matches!(Creds::read(1, &entry), Err(Error::Wrong { .. })));
        }
    }

    #[test]
    fn own_credentials_take_no_call() {
        let machine = Machine::look().unwrap();
        let mut tape = Tape::new();
        machine.creds.write(&mut tape, &machine);
        assert!(tape.is_empty());
        machine.creds.check(1, &machine).unwrap();
    }

    #[test]
    fn missing_rights_are_named() {
        let mut machine = Machine::look().unwrap();
        let wanted = machine.creds.clone();
        machine.creds.caps.bounding &= !(1 << 13);
        let wanted = Creds {
            caps: Caps {
                bounding: wanted.caps.bounding | 1 << 13,
                ..wanted.caps
            },
            ..wanted
        };
        let error = wanted.check(7, &machine).unwrap_err().to_string();
        assert!(
            error.contains("CAP_NET_RAW") && error.contains('7'),
            "{error}"
        );
    }
}
