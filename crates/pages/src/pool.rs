//! A fixed crew of worker threads fed by one bounded channel.
//!
//! The first error, or a panic, stops the work: jobs still queued are dropped, whoever submits is told,
//! and dropping the pool joins every thread. Nothing waits for a worker that is gone.

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};
use gelid_sys::sched;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Workers beyond this number buy nothing: memory bandwidth is used up.
const MAX_DEFAULT_WORKERS: usize = 16;

/// One worker for each core this process may use, sixteen at most.
#[must_use]
pub fn default_workers() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores.min(MAX_DEFAULT_WORKERS)).unwrap_or(NonZeroUsize::MIN)
}

/// What the error of a pipeline must be able to say for itself.
pub(crate) trait Fault: Clone + Send + 'static {
    /// A worker panicked.
    fn panicked() -> Self;
    /// The pool was dropped with work still to do.
    fn stopped() -> Self;
}

/// Never sent: the channel of this type only ever disconnects.
enum Never {}

/// The first error of a pool.
pub(crate) struct Failure<E> {
    raised: AtomicBool,
    first: Mutex<Option<E>>,
}

impl<E> Default for Failure<E> {
    fn default() -> Self {
        Self {
            raised: AtomicBool::new(false),
            first: Mutex::new(None),
        }
    }
}

impl<E: Fault> Failure<E> {
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// The first error; [`Fault::stopped`] if there is none.
    pub(crate) fn get(&self) -> E {
        lock(&self.first).clone().unwrap_or_else(E::stopped)
    }

    pub(crate) fn raise(&self, error: E) {
        lock(&self.first).get_or_insert(error);
        self.raised.store(true, Ordering::Release);
    }

    /// Does a job, and notes why that failed.
    fn attend<J>(&self, work: &mut Work<J, E>, job: &mut J) {
        match catch_unwind(AssertUnwindSafe(|| work(job))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.raise(error),
            Err(_) => self.raise(E::panicked()),
        }
    }
}

/// Locks without regard to poison: every holder leaves a consistent state behind at each step.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is done with a job.
type Work<J, E> = dyn FnMut(&mut J) -> Result<(), E> + Send;

/// The sending end of a pool; may be cloned and outlive it.
pub(crate) struct Submitter<J, E> {
    way: Way<J, E>,
    failure: Arc<Failure<E>>,
}

/// Where a job goes.
enum Way<J, E> {
    /// To the workers.
    Queue {
        jobs: Sender<J>,
        stopped: Receiver<Never>,
    },
    /// Nowhere: whoever submits it does it.
    Here(Arc<Mutex<Work<J, E>>>),
}

impl<J, E> Clone for Submitter<J, E> {
    fn clone(&self) -> Self {
        let way = match &self.way {
            Way::Queue { jobs, stopped } => Way::Queue {
                jobs: jobs.clone(),
                stopped: stopped.clone(),
            },
            Way::Here(work) => Way::Here(Arc::clone(work)),
        };
        Self {
            way,
            failure: Arc::clone(&self.failure),
        }
    }
}

impl<J, E: Fault> Submitter<J, E> {
    /// Queues a job, and waits while the queue is full; or does it. An error is the first error of the pool.
    pub(crate) fn submit(&self, mut job: J) -> Result<(), E> {
        if self.failure.is_raised() {
            return Err(self.failure.get());
        }
        let (jobs, stopped) = match &self.way {
            Way::Queue { jobs, stopped } => (jobs, stopped),
            Way::Here(work) => {
                self.failure.attend(&mut *lock(work), &mut job);
                return match self.failure.is_raised() {
                    true => Err(self.failure.get()),
                    false => Ok(()),
                };
            }
        };
        select! {
            send(jobs, job) -> sent => sent.map_err(|_| self.failure.get())?,
            recv(stopped) -> _ => return Err(self.failure.get()),
        }
        // What has been sent when all had gone is done by nobody.
        match stopped.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            _ => Err(self.failure.get()),
        }
    }

    pub(crate) fn failure(&self) -> &Arc<Failure<E>> {
        &self.failure
    }
}

/// The threads themselves.
pub(crate) struct Pool<J, E> {
    submitter: Submitter<J, E>,
    stop: Option<Sender<Never>>,
    threads: Vec<JoinHandle<()>>,
}

impl<J: Send + 'static, E: Fault> Pool<J, E> {
    /// Starts `workers` threads called `name-0`, `name-1`...; `make` gives each its state. So many jobs may be `waiting` for
    /// them.
    pub(crate) fn start<W>(
        name: &str,
        workers: NonZeroUsize,
        waiting: usize,
        make: impl Fn() -> W,
    ) -> io::Result<Self>
    where
        W: FnMut(&mut J) -> Result<(), E> + Send + 'static,
    {
        let (jobs, queue) = bounded(waiting);
        let (stop, stopped) = bounded(0);
        let failure = Arc::default();
        let way = Way::Queue {
            jobs,
            stopped: stopped.clone(),
        };
        let submitter = Submitter { way, failure };
        let mut pool = Self {
            submitter,
            stop: Some(stop),
            threads: Vec::new(),
        };
        for index in 0..workers.get() {
            let worker = Worker {
                queue: queue.clone(),
                stopped: stopped.clone(),
                failure: Arc::clone(&pool.submitter.failure),
                work: make(),
            };
            let thread = std::thread::Builder::new().name(format!("{name}-{index}"));
            // If one cannot be started, dropping the pool ends those that were.
            let begin = move || {
                // Where it may not, it works all the same.
                let _ = sched::spread(index, workers.get());
                worker.run();
            };
            pool.threads.push(thread.spawn(begin)?);
        }
        Ok(pool)
    }

    /// No threads at all: whoever submits a job does it, one at a time.
    pub(crate) fn in_place(work: impl FnMut(&mut J) -> Result<(), E> + Send + 'static) -> Self {
        Self {
            submitter: Submitter {
                way: Way::Here(Arc::new(Mutex::new(work))),
                failure: Arc::default(),
            },
            stop: None,
            threads: Vec::new(),
        }
    }

    pub(crate) fn submitter(&self) -> &Submitter<J, E> {
        &self.submitter
    }
}

impl<J, E> Pool<J, E> {
    /// Tells the workers to end; what is still queued is dropped. Does not wait for them.
    pub(crate) fn dismiss(&mut self) {
        self.stop = None;
    }
}

impl<J, E> Drop for Pool<J, E> {
    fn drop(&mut self) {
        self.dismiss();
        for thread in self.threads.drain(..) {
            // A panic was caught and reported inside.
            let _ = thread.join();
        }
    }
}

struct Worker<J, E, W> {
    queue: Receiver<J>,
    stopped: Receiver<Never>,
    failure: Arc<Failure<E>>,
    work: W,
}

impl<J, E: Fault, W: FnMut(&mut J) -> Result<(), E> + Send + 'static> Worker<J, E, W> {
    fn run(mut self) {
        // The job is dropped, and its promise broken by that, only after its error has been noted.
        while let Some(mut job) = self.next() {
            if self.failure.is_raised() {
                continue;
            }
            self.failure.attend(&mut self.work, &mut job);
        }
        // The channel would keep them as long as somebody might send more, and with them whoever waits for one.
        self.queue.try_iter().for_each(drop);
    }

    fn next(&self) -> Option<J> {
        select! {
            recv(self.queue) -> job => job.ok(),
            recv(self.stopped) -> _ => None,
        }
    }
}

/// The result of an object whose pages are still in the pipeline.
pub(crate) struct Promise<T, E> {
    result: Receiver<T>,
    failure: Arc<Failure<E>>,
}

impl<T, E: Fault> Promise<T, E> {
    /// A promise and the sender that keeps it; dropping the sender unused breaks it.
    pub(crate) fn new(failure: Arc<Failure<E>>) -> (Sender<T>, Self) {
        let (sender, result) = bounded(1);
        (sender, Self { result, failure })
    }

    pub(crate) fn wait(self) -> Result<T, E> {
        self.result.recv().map_err(|_| self.failure.get())
    }
}
