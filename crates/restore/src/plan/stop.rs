//! Tasks that job control has stopped.

use gelid_image::messages::TaskCoreEntry;

/// How job control has stopped a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub(crate) signal: i32,
    /// Its parent knows.
    pub(crate) told: bool,
}

impl Stop {
    /// What the image of a task says, if it is stopped.
    pub(super) fn of(process: &TaskCoreEntry) -> Option<Self> {
        const STOPPED: u32 = 3;
        const SIGSTOP: i32 = 19;
        if process.task_state != STOPPED {
            return None;
        }
        let signal = process.stop_signo.unwrap_or_default().cast_signed();
        let gelid = process.gelid.as_ref();
        Some(Self {
            signal: match gelid_sys::signal::stops(signal) {
                true => signal,
                false => SIGSTOP,
            },
            told: gelid.is_some_and(|gelid| gelid.stop_told == Some(true)),
        })
    }
}
