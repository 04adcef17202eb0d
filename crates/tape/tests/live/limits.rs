//! Tasks that leave little room, and many tasks at once.

use gelid_sys::syscall::nr;
use gelid_sys::vm::Mem;
use gelid_tape::{Arg, Error, Host, Tape, play_all};

use crate::guest::{Guest, Python};
use crate::stage::{Stage, ground, identity};

#[test]
fn a_full_address_space_lends_a_piece_of_its_stack() {
    for name in ["address-space-full", "address-space-limited"] {
        let guest = Guest::start(name).unwrap();
        let mut tree = guest.root.freeze();
        let spare = ground(&tree.processes()[0]).spare.unwrap();
        let mem = Mem::open(guest.root.pid()).unwrap();
        let contents = |mem: &Mem| {
            let mut bytes = vec![0; (spare.end - spare.start) as usize];
            mem.read(spare.start, &mut bytes).unwrap();
            bytes
        };
        mem.write(spare.start, b"dead calls").unwrap();
        let before = contents(&mem);
        let mut stage = Stage::set(&mut tree, 0);
        assert_eq!(*stage.host.data(), spare);
        let mut tape = Tape::new();
        let pid = tape.must(nr::getpid, []);
        let outcome = stage.carriers[0].play(&tape).unwrap();
        let want = guest.root.pid().as_raw_nonzero().get();
        assert_eq!(outcome.result(pid), i64::from(want));
        assert!(contents(&mem) != before);
        stage.strike(&mut tree, 0, false);
        assert!(contents(&mem) == before);
        tree.thaw().unwrap();
        assert_eq!(guest.verdict(), "ok");
    }
}

#[test]
fn seccomp_does_not_see_tapes() {
    // Strict mode: read, write, exit and the return from signals, and death for anything else.
    let mut guest = Python::start(
        "import ctypes, os\n\
         os.write(1, b'ready\\n')\n\
         libc = ctypes.CDLL(None)\n\
         libc.prctl(22, 1, 0, 0, 0)\n\
         while True: os.write(1, os.read(0, 100))",
    );
    assert_eq!(guest.ask("still there?"), "still there?");
    for _ in 0..5 {
        let mut tree = guest.root.freeze();
        assert!(tree.seccomp_suspended());
        let mut stage = Stage::set(&mut tree, 0);
        let mut tape = Tape::new();
        let old = tape.must(nr::umask, [Arg::Value(0o22)]);
        tape.must(nr::umask, [old.into()]);
        let outcome = stage.carriers[0].play(&tape).unwrap();
        assert_eq!(outcome.failure(), None);
        stage.strike(&mut tree, 0, false);
        tree.thaw().unwrap();
        assert_eq!(guest.ask("still there?"), "still there?");
    }
}

#[test]
fn hundreds_of_threads_play_at_once() {
    let mut guest = Python::start(
        "import sys, threading, time\n\
         threading.stack_size(65536)\n\
         for i in range(300): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
         print('ready')\n\
         for line in sys.stdin: print(threading.active_count())",
    );
    let mut tree = guest.root.freeze();
    let start = std::time::Instant::now();
    let mut stage = Stage::set(&mut tree, 0);
    assert_eq!(stage.carriers.len(), 301);
    let set = start.elapsed();
    let mut tape = Tape::new();
    let pid = tape.must(nr::getpid, []);
    let stack = tape.space(24);
    tape.must(nr::sigaltstack, [Arg::Value(0), stack.into()]);
    let work = stage.carriers.iter_mut().map(|carrier| (carrier, &tape));
    let outcomes = play_all(work).unwrap();
    let played = start.elapsed() - set;
    assert_eq!(outcomes.len(), 301);
    let want = i64::from(guest.pid().as_raw_nonzero().get());
    assert!(outcomes.iter().all(|outcome| outcome.result(pid) == want));
    stage.strike(&mut tree, 0, true);
    println!(
        "301 threads: boarded in {set:?}, played in {played:?}, left in {:?}",
        start.elapsed() - set - played
    );
    tree.thaw().unwrap();
    assert_eq!(guest.ask("how many?"), "301");
}

#[test]
fn a_task_that_lets_only_its_own_calls_pass_is_refused() {
    let mut guest = Python::start(
        "import ctypes, sys\n\
         p = ctypes.CDLL(None).prctl\n\
         p.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4\n\
         vdso = next(int(l.split('-')[0], 16) for l in open('/proc/self/maps') if '[vdso]' in l)\n\
         print('ready')\n\
         for line in sys.stdin: print(p(59, int(line), *([4096, vdso - 4096, 0] if int(line) else [0, 0, 0])))",
    );
    assert_eq!(guest.ask("1"), "0");
    let mut tree = guest.root.freeze();
    let process = &mut tree.processes_mut()[0];
    let (ground, id) = (ground(process), identity(process, 0));
    let task = process.threads[0].take().unwrap();
    let (error, task) = Host::seized(task, id, &ground, 4096, 512).unwrap_err();
    let tid = guest.pid();
    assert_eq!(error, Error::Diverted { tid });
    process.threads[0].put(task.unwrap());
    tree.thaw().unwrap();
    assert_eq!(guest.ask("0"), "0");
    let mut tree = guest.root.freeze();
    Stage::set(&mut tree, 0).strike(&mut tree, 0, false);
    tree.thaw().unwrap();
    assert_eq!(guest.ask("0"), "0");
}
