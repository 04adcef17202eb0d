//! Files of `/proc/PID` that hold one value.

use super::text::{Fields, Malformed, Result, chomp, decimal, hex, lines, signed};
use super::{Error, TaskDir};

type Read<T> = std::result::Result<T, Error>;

/// `comm`: the name of the thread, at most 15 bytes, as it is.
pub fn comm(task: &TaskDir) -> Read<Vec<u8>> {
    task.parsed_record("comm", 64, |text| Ok(chomp(text).to_vec()))
}

/// `cmdline`: the argument strings, each with a final NUL unless the task has overwritten them. Empty
/// for a zombie and for a kernel thread.
pub fn cmdline(task: &TaskDir) -> Read<Vec<u8>> {
    task.read("cmdline", 512)
}

/// `environ`: the environment strings the task was started with, each with a final NUL.
pub fn environ(task: &TaskDir) -> Read<Vec<u8>> {
    task.read("environ", 4096)
}

/// `personality`: the execution domain and its flags, `personality(2)`.
pub fn personality(task: &TaskDir) -> Read<u32> {
    task.parsed_record("personality", 64, |text| {
        u32::try_from(hex(chomp(text), "personality")?).map_err(|_| Malformed("personality"))
    })
}

/// `statm`: how many pages of anonymous private memory are resident; 0 for a task without an address space.
pub fn anonymous_pages(task: &TaskDir) -> Read<u64> {
    task.parsed_record("statm", 128, |text| {
        let mut words = chomp(text).split(|byte| *byte == b' ').skip(1);
        let mut next = || decimal::<u64>(words.next().unwrap_or_default(), "statm");
        let (resident, shared) = (next()?, next()?);
        Ok(resident.saturating_sub(shared))
    })
}

/// `status`: how many bytes of shared memory the process has in its page tables (`RssShmem`); 0 for a task without an address
/// space.
pub fn shared_memory(task: &TaskDir) -> Read<u64> {
    task.parsed_record("status", 4096, |text| {
        let Some(rest) = lines(text).find_map(|line| line.strip_prefix(b"RssShmem:")) else {
            return Ok(0);
        };
        let kib: u64 = decimal(Fields(rest).need("RssShmem")?, "RssShmem")?;
        Ok(kib.saturating_mul(1024))
    })
}

/// `oom_score_adj`: how readily the process is killed when memory is short, -1000 to 1000.
pub fn oom_score_adj(task: &TaskDir) -> Read<i32> {
    task.parsed_record("oom_score_adj", 64, |text| {
        signed(chomp(text), "oom_score_adj")
    })
}

/// `timerslack_ns`: the slack of timers of the thread in nanoseconds; 0 for a real-time one.
pub fn timerslack_ns(task: &TaskDir) -> Read<u64> {
    task.parsed_record("timerslack_ns", 64, |text| {
        decimal(chomp(text), "timerslack_ns")
    })
}

/// `loginuid`: the audit user, `u32::MAX` if unset. `ENOENT` on a kernel without auditing.
pub fn loginuid(task: &TaskDir) -> Read<u32> {
    task.parsed_record("loginuid", 64, |text| decimal(chomp(text), "loginuid"))
}

/// `coredump_filter`: which mappings go to a core dump. `None` for a task without an address space.
pub fn coredump_filter(task: &TaskDir) -> Read<Option<u64>> {
    task.parsed_record("coredump_filter", 64, |text| match chomp(text) {
        b"" => Ok(None),
        digits => hex(digits, "coredump_filter").map(Some),
    })
}

/// `autogroup`: the nice value of the group of its session, `None` where there is none.
pub fn autogroup_nice(task: &TaskDir) -> Read<Option<i32>> {
    let text = match task.read("autogroup", 64) {
        Err(error) if error.errno() == rustix::io::Errno::NOENT => return Ok(None),
        text => text?,
    };
    let nice = text.rsplit(|byte| *byte == b' ').next();
    let nice = nice.filter(|_| text.starts_with(b"/autogroup"));
    let nice = nice.map(|nice| signed(chomp(nice), "autogroup"));
    nice.transpose()
        .map_err(|what| task.parse_error("autogroup", what))
}

/// `attr/current`: the label of the security module, without a final newline or NUL; `None` if there is no
/// module that answers.
pub fn security_label(task: &TaskDir) -> Read<Option<Vec<u8>>> {
    match task.read("attr/current", 256) {
        Ok(text) => {
            let text = text.strip_suffix(b"\0").unwrap_or(&text);
            Ok(Some(chomp(text).to_vec()))
        }
        Err(error) if error.errno() == rustix::io::Errno::INVAL => Ok(None),
        Err(error) => Err(error),
    }
}

/// `setgroups` of the task's user namespace: whether `setgroups(2)` is allowed there.
pub fn setgroups_allowed(task: &TaskDir) -> Read<bool> {
    task.parsed_record("setgroups", 64, parse_setgroups)
}

fn parse_setgroups(text: &[u8]) -> Result<bool> {
    match chomp(text) {
        b"allow" => Ok(true),
        b"deny" => Ok(false),
        _ => Err(Malformed("setgroups")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_counts_once_it_is_touched() {
        const LEN: usize = 8 << 20;
        let dir = TaskDir::open(rustix::process::getpid()).unwrap();
        let before = shared_memory(&dir).unwrap();
        let file = crate::map::shared_anonymous(LEN, None).unwrap();
        let map = crate::map::Written::map(file, LEN).unwrap();
        for page in (0..LEN).step_by(4096) {
            map.write(b"x", page as u64).unwrap();
        }
        let after = shared_memory(&dir).unwrap();
        assert!(after >= before + LEN as u64 / 2, "{before} {after}");
    }
}
