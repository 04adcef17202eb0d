//! How to wait for what cannot be waited for with a limit.

use std::time::{Duration, Instant};

/// While a stop is due within microseconds the processor is only yielded; later on it is slept.
const YIELD: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(1);

/// Pauses that grow as long as nothing happens.
pub(crate) struct Backoff {
    since: Instant,
    pause: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            pause: Duration::from_micros(20),
        }
    }

    /// Something has happened: start over.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Time since something happened.
    pub(crate) fn idle(&self) -> Duration {
        self.since.elapsed()
    }

    pub(crate) fn pause(&mut self) {
        if self.idle() < YIELD {
            std::thread::yield_now();
        } else {
            std::thread::sleep(self.pause);
            self.pause = (self.pause * 2).min(LONGEST);
        }
    }
}
