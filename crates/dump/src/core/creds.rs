//! Credentials of a thread.
//!
//! Those of a leader come from its `status`. A thousand files of a thousand threads would take their time, so
//! the others are asked on their tapes, and only what they cannot answer in one call is looked up.

use gelid_image::messages::CredsEntry;
use gelid_sys::prctl::{PR_CAPBSET_READ, PR_GET_NO_NEW_PRIVS, PR_GET_SECUREBITS};
use gelid_sys::proc::status::{Caps, Status};
use gelid_sys::syscall::nr;
use gelid_tape::{Arg, Data, Op, Tape};

use super::Error;
use super::call::{Answers, prctl};

/// `_LINUX_CAPABILITY_VERSION_3`
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// `CAP_CHECKPOINT_RESTORE`, the last there is in 2025.
const LAST_CAPABILITY: u32 = 40;
/// Groups that there is room for at least: threads may have others than their leader.
const GROUPS: usize = 16;
/// Sets the id of the filesystem to nothing, which fails, and tells it.
const QUERY: u64 = u32::MAX as u64;

/// The record of what `status` says.
pub(super) fn of_status(status: &Status, secure_bits: u32) -> CredsEntry {
    let [uid, euid, suid, fsuid] = status.uid;
    let [gid, egid, sgid, fsgid] = status.gid;
    let ids = CredsEntry {
        uid,
        euid,
        suid,
        fsuid,
        gid,
        egid,
        sgid,
        fsgid,
        groups: status.groups.clone(),
        ..Default::default()
    };
    with_caps(ids, &status.caps, secure_bits, status.no_new_privs)
}

fn with_caps(ids: CredsEntry, caps: &Caps, secure_bits: u32, no_new_privs: bool) -> CredsEntry {
    let words = |set: u64| vec![set as u32, (set >> 32) as u32];
    CredsEntry {
        cap_inh: words(caps.inheritable),
        cap_prm: words(caps.permitted),
        cap_eff: words(caps.effective),
        cap_bnd: words(caps.bounding),
        cap_amb: words(caps.ambient),
        secbits: secure_bits,
        no_new_privs: no_new_privs.then_some(1),
        ..ids
    }
}

/// The secure bits, which no file tells.
#[derive(Debug)]
pub(super) struct AskedBits(Op);

impl AskedBits {
    pub(super) fn ask(tape: &mut Tape) -> Self {
        Self(prctl(tape, PR_GET_SECUREBITS, 0))
    }

    pub(super) fn answer(&self, answers: Answers<'_>) -> Result<u32, Error> {
        Ok(answers.must(self.0, "prctl(PR_GET_SECUREBITS)")? as u32)
    }
}

/// Everything, asked for.
#[derive(Debug)]
pub(super) struct AskedCreds {
    uids: (Op, [Data; 3]),
    gids: (Op, [Data; 3]),
    fsuid: Op,
    fsgid: Op,
    groups: (Op, Data),
    caps: (Op, Data),
    bounding: Vec<Op>,
    no_new_privs: Op,
}

impl AskedCreds {
    /// `leader` tells what is likely.
    pub(super) fn ask(tape: &mut Tape, leader: &Status) -> Self {
        let three = |tape: &mut Tape, nr| {
            let data = [(); 3].map(|()| tape.space(4));
            (tape.call(nr, data.map(Arg::Data)), data)
        };
        let uids = three(tape, nr::getresuid);
        let gids = three(tape, nr::getresgid);
        let count = leader.groups.len().max(GROUPS);
        let groups = tape.space(count * 4);
        let asked = tape.call(nr::getgroups, [(count as u64).into(), groups.into()]);
        let mut header = [0; 8];
        header[..4].copy_from_slice(&CAPABILITY_VERSION.to_ne_bytes());
        let header = tape.bytes(&header);
        let caps = tape.space(24);
        let last = LAST_CAPABILITY.max(63_u32.saturating_sub(leader.caps.bounding.leading_zeros()));
        let bounding = (0..=last).map(|cap| prctl(tape, PR_CAPBSET_READ, cap.into()));
        Self {
            uids,
            gids,
            groups: (asked, groups),
            bounding: bounding.collect(),
            caps: (tape.call(nr::capget, [header.into(), caps.into()]), caps),
            fsuid: tape.call(nr::setfsuid, [Arg::Value(QUERY)]),
            fsgid: tape.call(nr::setfsgid, [Arg::Value(QUERY)]),
            no_new_privs: prctl(tape, PR_GET_NO_NEW_PRIVS, 0),
        }
    }

    /// `None` if the thread has more than was asked for: then `status` must be read.
    pub(super) fn answer(
        &self,
        answers: Answers<'_>,
        secure_bits: u32,
    ) -> Result<Option<CredsEntry>, Error> {
        answers.must(self.uids.0, "getresuid")?;
        answers.must(self.gids.0, "getresgid")?;
        answers.must(self.caps.0, "capget")?;
        let no_new_privs = answers.must(self.no_new_privs, "prctl(PR_GET_NO_NEW_PRIVS)")?;
        let [effective, permitted, inheritable] = [0, 1, 2].map(|set| {
            let half = |index| u64::from(answers.half(self.caps.1, index));
            half(set) | half(set + 3) << 32
        });
        let (op, data) = self.groups;
        let Ok(count) = answers.outcome.ok(op) else {
            return Ok(None);
        };
        // Ambient capabilities are inheritable.
        if inheritable != 0 {
            return Ok(None);
        }
        let bounding = self.bounding.iter().enumerate().fold(0, |set, (cap, op)| {
            set | u64::from(answers.outcome.ok(*op) == Ok(1)) << cap
        });
        let [uid, euid, suid] = self.uids.1.map(|data| answers.half(data, 0));
        let [gid, egid, sgid] = self.gids.1.map(|data| answers.half(data, 0));
        let ids = CredsEntry {
            uid,
            euid,
            suid,
            fsuid: answers.must(self.fsuid, "setfsuid")? as u32,
            gid,
            egid,
            sgid,
            fsgid: answers.must(self.fsgid, "setfsgid")? as u32,
            groups: (0..count as usize)
                .map(|at| answers.half(data, at))
                .collect(),
            ..Default::default()
        };
        let caps = Caps {
            inheritable,
            permitted,
            effective,
            bounding,
            ambient: 0,
        };
        Ok(Some(with_caps(ids, &caps, secure_bits, no_new_privs != 0)))
    }
}
