//! Which number was given last in the pid namespace of the root: `ns_last_pid`, which only those inside can read.

use rustix::fs::{Mode, OFlags};

use super::{Census, Kind, is_external};
use crate::Options;

const FILE: &str = "/proc/sys/kernel/ns_last_pid";

/// Finds it out, by a child of the dumper there, whose own number comes next. It is set back then. Nobody else may be
/// born there meanwhile, so others are not asked about theirs.
pub(crate) fn given(census: &Census, options: &Options) -> Option<i32> {
    let pids = census.root(Kind::Pid)?;
    if is_external(pids, options) {
        return None;
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(FILE, flags, Mode::empty()).ok();
    let asked = census.ask_inside(move || {
        let last = rustix::process::getpid().as_raw_pid() - 1;
        if let Some(file) = file {
            let mut digits = [0; 10];
            // If it cannot be set, the next process in there has another number, as on any busy machine.
            let _ = rustix::io::write(&file, decimal(last, &mut digits));
        }
        Ok([last])
    });
    asked.map(|[last]| last)
}

/// Writes a number without taking memory.
fn decimal(number: i32, digits: &mut [u8; 10]) -> &[u8] {
    let mut left = number.unsigned_abs();
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 || at == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written() {
        for number in [0, 7, 30_512, i32::MAX] {
            let text = number.to_string();
            assert_eq!(decimal(number, &mut [0; 10]), text.as_bytes());
        }
    }
}
