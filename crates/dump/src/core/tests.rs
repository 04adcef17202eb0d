//! The state of real processes, which go on afterwards.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gelid_image::Dir;
use gelid_seize::Tree;
use gelid_sys::Pid;
use gelid_sys::proc::smaps::Area;

use super::{Before, Cores, collect};
use crate::core::Machine;
use crate::layout::{Layout, Looker, Promise};
use crate::namespace::Own;
use crate::{Error, Options, survey};

/// A Python program that tells a line when it is ready, and another one when it is told one.
struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(text: &str) -> Self {
        let mut command = Command::new("setsid");
        let command = command
            .args(["python3", "-u", "-c", text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut program = Self {
            child,
            input,
            output,
        };
        assert_eq!(program.line(), "ready");
        program
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self) -> String {
        self.input.write_all(b"go\n").unwrap();
        self.line()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What `/proc` shows that a dump could disturb.
    fn face(&self) -> Vec<String> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.pid()));
        let status = read("status").unwrap();
        let lines = status
            .lines()
            .filter(|line| line.starts_with("Sig") || line.starts_with("Shd"))
            // Counts the signals of all processes of the user.
            .filter(|line| !line.starts_with("SigQ"));
        let mut face: Vec<String> = lines.map(str::to_owned).collect();
        face.extend(read("maps").unwrap().lines().map(str::to_owned));
        face
    }

    /// Waits until it waits for a line, and nothing of it changes.
    fn at_rest(&self) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let before = self.face();
            std::thread::sleep(Duration::from_millis(100));
            let call = std::fs::read(format!("/proc/{}/syscall", self.pid())).unwrap();
            if call.starts_with(b"0 0x0 ") && self.face() == before {
                return before;
            }
            assert!(Instant::now() < end, "never at rest");
        }
    }

    fn collect(&mut self) -> Vec<Cores> {
        let before = self.at_rest();
        let (mut tree, cores) = freeze(self.pid());
        let again = collect_from(&mut tree);
        tree.thaw().unwrap();
        let after = self.face();
        let changed: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
        assert!(
            changed.is_empty() && after.len() == before.len(),
            "{changed:?}"
        );
        for (one, other) in cores.iter().zip(&again) {
            let (mut one, mut other) = (one.leader.clone(), other.leader.clone());
            for core in [&mut one, &mut other] {
                core.tc.as_mut().unwrap().timers = None;
            }
            assert_eq!(one, other, "the second look shows the same");
        }
        cores
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks when it is asked.
#[derive(Default)]
struct AtOnce;

impl Looker for AtOnce {
    fn look(&self, pid: Pid, promise: Promise) -> Result<(), Error> {
        promise.keep(&Arc::new(Layout::read(pid)?));
        Ok(())
    }

    fn part(&self, _: Pid, _: &[Area]) -> Result<(), Error> {
        Ok(())
    }

    fn seen(&self, _: Pid, _: Arc<Layout>) -> Result<(), Error> {
        Ok(())
    }

    fn looked(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn freeze(root: Pid) -> (Tree, Vec<Cores>) {
    let mut tree = gelid_seize::freeze(&gelid_seize::Options::new(root)).unwrap();
    let cores = collect_from(&mut tree);
    (tree, cores)
}

fn collect_from(tree: &mut Tree) -> Vec<Cores> {
    let namespaces = Own::look().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(tree.root().pid, Dir::open(folder.path()).unwrap());
    let (tasks, census, layouts) = survey::tree(tree, &options, &namespaces, &AtOnce).unwrap();
    layouts.wait(&AtOnce).unwrap();
    let before = Before::look(tree.root().pid);
    let machine = Machine::look().unwrap();
    let start = Instant::now();
    let seen = (&tasks[..], &census, &before, &machine);
    let (cores, _) = collect(tree, seen, (None, None)).unwrap();
    eprintln!("{} processes: {:?}", cores.len(), start.elapsed());
    cores
}

#[test]
fn a_process_tells_its_state_and_goes_on() {
    let mut program = Program::start(
        "
import ctypes, os, resource, signal, sys
libc = ctypes.CDLL(None)
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, 40])
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), 40)
os.nice(3)
libc.prctl(15, b'a ) name')
libc.prctl(36, 1)
libc.prctl(1, 12)
libc.prctl(29, 77777)
libc.prctl(4, 0)
libc.prctl(38, 1, 0, 0, 0)
signal.setitimer(signal.ITIMER_REAL, 1000, 5)
event = (ctypes.c_int * 16)(0x55, 0, 34, 0)
ident = ctypes.c_int()
assert libc.syscall(222, 1, event, ctypes.byref(ident)) == 0
assert libc.syscall(223, ident, 0, (ctypes.c_long * 4)(7, 0, 500, 0), None) == 0
resource.setrlimit(resource.RLIMIT_CORE, (4096, 8192))
print('ready')
sys.stdin.readline()
print('went on', sorted(signal.sigpending()))
",
    );
    let cores = program.collect();
    assert_eq!(cores.len(), 1);
    let cores = &cores[0];
    assert_eq!((cores.dumpable, cores.thp_disabled), (0, false));
    assert!(cores.brk > 0);
    let tc = cores.leader.tc.as_ref().unwrap();
    assert_eq!(tc.comm, b"a ) name");
    assert_eq!(tc.child_subreaper, Some(true));
    assert_eq!(tc.blk_sigset, 1 | 1 << 39);
    assert_eq!(tc.sigactions.len(), 62);
    assert!(tc.sigactions[8].sigaction > 1, "SIGUSR1 is caught");
    assert_eq!(tc.sigactions[10].sigaction, 1, "SIGUSR2 is ignored");
    let signals = &tc.signals_s.as_ref().unwrap().signals;
    let numbers: Vec<u8> = signals.iter().map(|signal| signal.siginfo[0]).collect();
    assert_eq!(numbers, [1, 40]);
    let limits = &tc.rlimits.as_ref().unwrap().rlimits;
    assert_eq!((limits[4].cur, limits[4].max), (4096, 8192));
    let timers = tc.timers.as_ref().unwrap();
    assert!((990..=1000).contains(&timers.real.vsec) && timers.real.isec == 5);
    assert_eq!(timers.posix.len(), 1);
    let posix = &timers.posix[0];
    assert_eq!((posix.si_signo, posix.sival_ptr, posix.isec), (34, 0x55, 7));
    assert!((490..=500).contains(&posix.vsec));
    let thread = cores.leader.thread_core.as_ref().unwrap();
    assert_eq!(thread.sched_nice, Some(3));
    assert_eq!(thread.pdeath_sig, Some(12));
    assert_eq!(thread.creds.as_ref().unwrap().no_new_privs, Some(1));
    assert_eq!(thread.gelid.as_ref().unwrap().timer_slack, Some(77777));
    let info = cores.leader.thread_info.as_ref().unwrap();
    assert_eq!(info.gpregs.ax, 0, "read(2) is issued again");
    assert_eq!(program.ask(), "went on [<Signals.SIGHUP: 1>, 40]");
}

#[test]
fn threads_tell_their_state_too() {
    let mut program = Program::start(
        "
import ctypes, sys, threading
libc = ctypes.CDLL(None)
threading.stack_size(65536)
lock = threading.Lock()
lock.acquire()
def work(number):
    libc.prctl(15, b't%d' % number)
    started.release()
    lock.acquire()
    lock.release()
started = threading.Semaphore(0)
threads = [threading.Thread(target=work, args=[number]) for number in range(1000)]
for thread in threads:
    thread.start()
    started.acquire()
print('ready')
sys.stdin.readline()
lock.release()
for thread in threads: thread.join()
print('went on')
",
    );
    let cores = program.collect();
    assert_eq!(cores[0].threads.len(), 1000);
    let leader = cores[0].leader.thread_core.as_ref().unwrap();
    // Numbers of threads may have begun anew among them.
    let mut names = HashSet::new();
    for (_, core) in &cores[0].threads {
        assert!(core.tc.is_none());
        let thread = core.thread_core.as_ref().unwrap();
        names.insert(thread.comm.clone().unwrap());
        assert_eq!(thread.creds, leader.creds);
        assert_eq!(thread.gelid, None);
        assert!(core.thread_info.as_ref().unwrap().clear_tid_addr > 0);
        assert_eq!(core.thread_info.as_ref().unwrap().gpregs.ax, 202);
    }
    for index in 0..1000 {
        assert!(names.contains(format!("t{index}").as_bytes()), "{index}");
    }
    assert_eq!(program.ask(), "went on");
}

#[test]
fn many_processes_are_asked_at_once() {
    let mut program = Program::start(
        "
import os, sys
r, w = os.pipe()
for _ in range(100):
    if os.fork() == 0:
        os.close(w)
        os.read(r, 1)
        os._exit(7)
os.close(r)
print('ready')
sys.stdin.readline()
os.close(w)
print('went on', sum(os.wait()[1] == 7 << 8 for _ in range(100)))
",
    );
    let cores = program.collect();
    assert_eq!(cores.len(), 101);
    assert_eq!(program.ask(), "went on 100");
}
