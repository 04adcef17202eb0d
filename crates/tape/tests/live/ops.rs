//! What a tape does with results, failures and room.

use gelid_sys::Errno;
use gelid_sys::syscall::nr;
use gelid_tape::{Arg, Error, Ground, Host, Tape};

use crate::guest::Python;
use crate::stage::{ROOM, Stage, identity};

const SLEEPER: &str = "import sys\nprint('ready')\nfor line in sys.stdin: print('on')";

#[test]
fn results_go_from_op_to_op() {
    let mut guest = Python::start(SLEEPER);
    let mut tree = guest.root.freeze();
    let mut stage = Stage::set(&mut tree, 0);
    let mut tape = Tape::new();
    let ends = tape.space(8);
    let text = tape.bytes(b"through a pipe");
    let back = tape.space(16);
    let pipe = tape.must(nr::pipe2, [ends.into(), Arg::Value(0)]);
    let file = tape.bytes(b"/dev/null\0");
    let null = tape.must(nr::open, [file.into(), Arg::Value(2)]);
    let copy = tape.must(nr::fcntl, [null.into(), Arg::Value(0), Arg::Value(100)]);
    let written = tape.must(nr::write, [copy.into(), text.into(), Arg::Value(14)]);
    let outcome = stage.carriers[0].play(&tape).unwrap();
    assert_eq!(outcome.failure(), None);
    assert_eq!(outcome.ok(pipe), Ok(0));
    assert!(outcome.result(copy) >= 100 && outcome.ok(written) == Ok(14));
    let fd = |at: usize| {
        let bytes = outcome.data(ends)[at..at + 4].try_into().unwrap();
        Arg::from(i32::from_ne_bytes(bytes))
    };

    // The next tape uses what the first has found, and leaves no descriptor behind.
    let (read_end, write_end) = (fd(0), fd(4));
    let mut next = Tape::new();
    let text = next.bytes(b"through a pipe");
    let back_again = next.space(16);
    next.must(nr::write, [write_end, text.into(), Arg::Value(14)]);
    let read = next.must(nr::read, [read_end, back_again.into(), Arg::Value(16)]);
    let numbers = [outcome.result(null), outcome.result(copy)].map(|fd| Arg::from(fd as u64));
    for fd in [read_end, write_end].into_iter().chain(numbers) {
        next.must(nr::close, [fd]);
    }
    let after = stage.carriers[0].play(&next).unwrap();
    assert_eq!((after.failure(), after.ok(read)), (None, Ok(14)));
    assert_eq!(&after.data(back_again)[..14], b"through a pipe");
    assert_eq!(outcome.data(back), [0; 16]);
    stage.strike(&mut tree, 0, false);
    tree.thaw().unwrap();
    assert_eq!(guest.ask("well?"), "on");
}

#[test]
fn a_call_is_made_for_each_number() {
    const F_GETFD: u64 = 1;
    const F_SETFD: u64 = 2;
    let mut guest = Python::start(SLEEPER);
    let mut tree = guest.root.freeze();
    let mut stage = Stage::set(&mut tree, 0);
    let mut tape = Tape::new();
    let set = |flag: u64| [1, F_SETFD, flag].map(Arg::Value);
    let before = tape.must(nr::fcntl, set(1));
    let flags = tape.each(nr::fcntl, 0..3, F_GETFD);
    let missing = tape.each(nr::fcntl, 12345..12350, F_GETFD);
    let after = tape.must(nr::fcntl, set(0));
    let outcome = stage.carriers[0].play(&tape).unwrap();
    assert_eq!((outcome.failure(), outcome.played()), (None, 4));
    assert_eq!((outcome.ok(before), outcome.ok(after)), (Ok(0), Ok(0)));
    assert_eq!(outcome.data(flags), [0, 1, 0]);
    let errno = (-Errno::BADF.raw_os_error()) as u8;
    assert_eq!(outcome.data(missing), [errno; 5]);
    stage.strike(&mut tree, 0, false);
    tree.thaw().unwrap();
    assert_eq!(guest.ask("well?"), "on");
}

#[test]
fn a_must_that_fails_ends_the_tape() {
    let mut guest = Python::start(SLEEPER);
    let mut tree = guest.root.freeze();
    let mut stage = Stage::set(&mut tree, 0);
    let mut tape = Tape::new();
    let first = tape.must(nr::getpid, []);
    let may = tape.call(nr::close, [Arg::from(-1)]);
    let must = tape.must(nr::close, [Arg::from(12345)]);
    let never = tape.call(nr::umask, [Arg::Value(0)]);
    let outcome = stage.carriers[0].play(&tape).unwrap();
    assert!(outcome.result(first) > 0);
    assert_eq!(outcome.ok(may), Err(Errno::BADF));
    assert_eq!(outcome.failure(), Some((must, Errno::BADF)));
    assert_eq!((outcome.played(), outcome.result(never)), (2, 0));

    let empty = stage.carriers[0].play(&Tape::new()).unwrap();
    assert_eq!((empty.played(), empty.failure()), (0, None));
    stage.strike(&mut tree, 0, false);
    tree.thaw().unwrap();
    assert_eq!(guest.ask("well?"), "on");
}

#[test]
fn rooms_are_given_out_and_taken_back() {
    let mut guest = Python::start(
        "import sys, threading, time\n\
         for i in range(3): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
         print('ready')\n\
         for line in sys.stdin: print('on', len(open('/proc/self/maps').readlines()))",
    );
    let maps = guest.ask("how many?");
    let mut tree = guest.root.freeze();
    let process = &mut tree.processes_mut()[0];
    let ids: Vec<_> = (0..4).map(|index| identity(process, index)).collect();
    let ground = crate::stage::ground(process);
    let mut tasks: Vec<_> = process
        .threads
        .iter_mut()
        .map(|thread| thread.take().unwrap())
        .collect();
    let room = Host::region_size(ROOM);
    let (mut host, mut first) = Host::seized(tasks.remove(0), ids[0], &ground, 4096, ROOM).unwrap();
    let mark = host.mark();
    let all = (host.data().end - host.data().start) as usize;
    assert_eq!(all, 4096);

    let mut tape = Tape::new();
    tape.space(ROOM - 80 + 1);
    tape.must(nr::getpid, []);
    let size = tape.size();
    let error = first.start(&tape).unwrap_err();
    let too_long = |tid, size, room| Error::TooLong { tid, size, room };
    assert_eq!(error, too_long(first.tid(), size, ROOM));

    // Two more have room at a time; the third gets it after the others.
    let mut tape = Tape::new();
    let pid = tape.must(nr::getpid, []);
    tape.space(ROOM - 80);
    let mut carriers = Vec::new();
    for (task, id) in tasks.into_iter().zip(&ids[1..]) {
        let (left, tid) = (host.left(), task.pid());
        let carrier = match host.board(task, *id, ROOM) {
            Ok(carrier) => carrier,
            Err((error, task)) => {
                assert_eq!(error, too_long(tid, ROOM, left));
                for carrier in carriers.drain(..) {
                    put(&mut tree, gelid_tape::Carrier::release(carrier).unwrap());
                }
                host.reset(mark);
                host.board(task.unwrap(), *id, ROOM).unwrap()
            }
        };
        carriers.push(carrier);
        for carrier in carriers.iter_mut().chain([&mut first]) {
            let outcome = carrier.play(&tape).unwrap();
            assert_eq!(outcome.result(pid), i64::from(id.tgid));
        }
    }
    assert_eq!(carriers.len(), 1, "{room} bytes each");
    for carrier in carriers {
        put(&mut tree, carrier.release().unwrap());
    }
    put(&mut tree, host.leave(first).unwrap());
    tree.thaw().unwrap();
    assert_eq!(guest.ask("how many?"), maps, "nothing stays mapped");
}

fn put(tree: &mut gelid_seize::Tree, task: gelid_sys::ptrace::Stopped) {
    let mut threads = tree.threads_mut();
    threads
        .find(|thread| thread.tid == task.pid())
        .unwrap()
        .put(task);
}

#[test]
fn without_a_place_the_task_is_as_it_was() {
    let mut guest = Python::start(SLEEPER);
    let mut tree = guest.root.freeze();
    let id = identity(&tree.processes()[0], 0);
    let ground = Ground::default();
    let task = tree.processes_mut()[0].threads[0].take().unwrap();
    let before = (task.regs().unwrap(), task.sigmask().unwrap());
    let (error, task) = Host::seized(task, id, &ground, 4096, ROOM).unwrap_err();
    assert!(matches!(error, Error::NoCave { .. }), "{error}");
    let task = task.unwrap();
    assert_eq!((task.regs().unwrap(), task.sigmask().unwrap()), before);

    // More than the address space holds, and nothing to spare.
    let mut ground = crate::stage::ground_of(task.pid());
    ground.spare = None;
    let (error, task) = Host::seized(task, id, &ground, 1 << 60, ROOM).unwrap_err();
    assert!(matches!(error, Error::NoRoom { .. }), "{error}");
    let task = task.unwrap();
    assert_eq!((task.regs().unwrap(), task.sigmask().unwrap()), before);
    let vdso = &ground.code[0];
    let mut page = vec![0; 4096];
    let mem = gelid_sys::vm::Mem::open(task.pid()).unwrap();
    mem.read(vdso.end - 4096, &mut page).unwrap();
    let own = gelid_sys::vm::Mem::open(rustix::process::getpid()).unwrap();
    let mut want = vec![0; 4096];
    own.read(own_vdso_end() - 4096, &mut want).unwrap();
    assert!(page == want, "the stub is gone");
    put(&mut tree, task);
    tree.thaw().unwrap();
    assert_eq!(guest.ask("well?"), "on");
}

fn own_vdso_end() -> u64 {
    crate::stage::ground_of(rustix::process::getpid()).code[0].end
}
