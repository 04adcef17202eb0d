//! Memory that is protected beyond its permissions, `pkeys(7)` and `mseal(2)`.
//!
//! `execute-only`: memory that can be executed and not be read, by a key that the kernel has chosen, and a thread that
//! may read it all the same. `key`: keys that are allocated, in use, and freed while they are; threads and a child with
//! other rights. `key-read-only`, `key-forbidden`: a thread that has forbidden itself to write to most memory, or to
//! read any. `sealed`: what cannot be unmapped or protected otherwise any more.

use crate::Entry;
use crate::os::{Map, PAGE, errno, os, smaps};
use crate::protocol::{Check, Failure, Gate, Guest, ensure, same, until};
use crate::signals::handle_informed;
use std::arch::{asm, global_asm};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("execute-only", execute_only),
    Entry("key", key),
    Entry("key-read-only", key_read_only),
    Entry("key-forbidden", key_forbidden),
    Entry("sealed", sealed),
];

/// `si_code` of a fault that a key was the reason for.
const SEGV_PKUERR: i32 = 4;
/// `mov eax, 42; ret`
const CODE: u64 = u64::from_le_bytes([0xb8, 42, 0, 0, 0, 0xc3, 0, 0]);

/// What the last fault was about: its code and key.
static FAULT: (AtomicI32, AtomicU32) = (AtomicI32::new(0), AtomicU32::new(0));

/// Notes a fault, and goes on behind the instruction of three bytes that caused it.
extern "C" fn note(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives both, and the key is at this place of the first.
    unsafe {
        let key = info.cast::<u8>().add(32).cast::<u32>().read();
        FAULT.0.store((*info).si_code, Ordering::SeqCst);
        FAULT.1.store(key, Ordering::SeqCst);
        let context = context.cast::<libc::ucontext_t>();
        (*context).uc_mcontext.gregs[libc::REG_RIP as usize] += 3;
    }
}

/// Has faults noted.
fn catch() -> Check {
    handle_informed(libc::SIGSEGV, note, 0)
}

/// The fault that something causes: code and key; zeros for none.
fn fault(cause: impl FnOnce()) -> (i32, u32) {
    FAULT.0.store(0, Ordering::SeqCst);
    FAULT.1.store(0, Ordering::SeqCst);
    cause();
    (
        FAULT.0.load(Ordering::SeqCst),
        FAULT.1.load(Ordering::SeqCst),
    )
}

/// Reads a word by an instruction of three bytes.
fn read(map: &Map) -> u64 {
    let value: u64;
    // SAFETY: an address inside the mapping; a fault is caught, and what is read is the address then.
    unsafe { asm!("mov rdi, [rdi]", inout("rdi") map.addr() => value, options(nostack)) };
    value
}

/// Writes a word by an instruction of three bytes.
fn write(map: &Map) {
    // SAFETY: as above.
    unsafe { asm!("mov [rdi], rdi", in("rdi") map.addr(), options(nostack)) };
}

/// The rights of this thread.
fn rights() -> u32 {
    let rights: u32;
    // SAFETY: only where there are keys; the instruction changes nothing.
    unsafe { asm!("rdpkru", out("eax") rights, in("ecx") 0, out("edx") _, options(nostack)) };
    rights
}

/// Gives itself other rights.
fn set_rights(rights: u32) {
    // SAFETY: only where there are keys; no memory that is used loses its rights.
    unsafe { asm!("wrpkru", in("eax") rights, in("ecx") 0, in("edx") 0, options(nostack)) };
}

/// The key of a mapping.
fn key_of(map: &Map) -> Check<u32> {
    let lines = smaps(map.addr())?;
    let key = lines
        .iter()
        .find_map(|line| line.strip_prefix("ProtectionKey:"));
    match key {
        Some(key) => Ok(key.trim().parse()?),
        None => Err(Failure::skip("no protection keys")),
    }
}

/// Runs the code in a mapping.
fn run(map: &Map) -> u64 {
    // SAFETY: the guest has put a function there.
    let code: extern "C" fn() -> u64 = unsafe { std::mem::transmute(map.at(0)) };
    code()
}

/// A key, with these rights of this thread to it.
fn alloc(rights: i32) -> Check<u32> {
    match os!(libc::syscall(libc::SYS_pkey_alloc, 0, rights)) {
        Ok(key) => Ok(key as u32),
        Err(_) => Err(Failure::skip("no protection keys")),
    }
}

/// Gives a key back.
fn free(key: u32) -> Check {
    os!(libc::syscall(libc::SYS_pkey_free, key))?;
    Ok(())
}

/// Memory under a key, filled.
fn under(key: u32, map: Map, seed: u64) -> Check<Map> {
    map.fill(0, 2, seed);
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    os!(libc::syscall(
        libc::SYS_pkey_mprotect,
        map.addr(),
        2 * PAGE,
        rights,
        key
    ))?;
    Ok(map)
}

/// Keys that are allocated, one bit each, by giving each to memory that there cannot be.
fn allocated() -> u32 {
    const NOWHERE: usize = 1 << 63;
    (0..16).fold(0, |keys, key| {
        // SAFETY: there is no memory, so nothing is changed.
        unsafe { libc::syscall(libc::SYS_pkey_mprotect, NOWHERE, PAGE, 0, key) };
        keys | u32::from(errno() == libc::ENOMEM) << key
    })
}

/// No access, or no writing, of `pkey_alloc(2)`.
const NO_ACCESS: i32 = 1;
const NO_WRITING: i32 = 2;

fn key(guest: &Guest) -> Check {
    catch()?;
    let keys = [alloc(0)?, alloc(NO_WRITING)?, alloc(NO_ACCESS)?, alloc(0)?];
    let locked = Map::anon(2 * PAGE)?;
    os!(libc::mlock(locked.at(0), PAGE))?;
    let no_writing = under(keys[1], locked, 1)?;
    let no_access = under(keys[2], Map::anon(2 * PAGE)?, 2)?;
    let freed = under(keys[3], Map::anon(2 * PAGE)?, 3)?;
    let shared = under(keys[1], Map::shared(2 * PAGE)?, 4)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let executable = Map::new(PAGE, libc::PROT_EXEC, flags, -1, 0)?;
    free(keys[0])?;
    free(keys[3])?;
    let maps = [&no_writing, &no_access, &freed, &shared, &executable];
    let number = |map: &&Map| key_of(map);
    let of_maps: Vec<u32> = maps.iter().map(number).collect::<Check<_>>()?;
    let here = |what: &str, keys: u32, mine: u32| -> Check {
        same!(format!("rights of {what}"), rights(), mine);
        same!(format!("keys of {what}"), allocated(), keys);
        let now: Vec<u32> = maps.iter().map(number).collect::<Check<_>>()?;
        same!(format!("keys of the memory of {what}"), now, of_maps);
        no_writing.check("memory not to be written", 0, 2, 1)?;
        freed.check("memory under a key that was freed", 0, 2, 3)?;
        shared.check("shared memory", 0, 2, 4)?;
        for (map, cause, index) in [
            (&no_writing, write as fn(&Map), 0),
            (&no_access, |map: &Map| _ = read(map), 1),
            (&shared, write, 3),
            (&executable, |map: &Map| _ = read(map), 4),
        ] {
            let found = fault(|| cause(map));
            same!(
                "code and key of the fault",
                found,
                (SEGV_PKUERR, of_maps[index])
            );
        }
        Ok(())
    };
    let gate = Gate::new()?;
    let child = guest.fork("child", |guest| {
        let own = alloc(NO_WRITING)?;
        same!("the first free key", own, keys[0]);
        let mine = under(own, Map::anon(2 * PAGE)?, 5);
        ensure!(mine.is_ok(), "memory of the child");
        let (all, before) = (allocated(), rights());
        gate.arrive()?;
        guest.wait();
        here("the child", all, before)
    })?;
    gate.wait(1)?;
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let free = scope.spawn(|| -> Check {
            set_rights(0);
            barrier.wait();
            guest.wait();
            same!("rights of the thread that may", rights(), 0);
            no_access.check("memory without access", 0, 2, 2)
        });
        barrier.wait();
        let (all, before) = (allocated(), rights());
        guest.hold()?;
        here("the parent", all, before)?;
        same!("the first free key", alloc(0)?, keys[0]);
        free.join().map_err(|_| Failure::new("a thread panicked"))?
    })?;
    child.join(guest)
}

static DEVIATIONS: AtomicU32 = AtomicU32::new(0);
static ENDED: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" {
    /// Takes the rights that the second word of its argument says, and looks at them until the first is not 0.
    fn gelid_key_spin(argument: *mut libc::c_void) -> i32;
}

// esi: the rights; r8d: how often they were others.
global_asm!(
    ".globl gelid_key_spin",
    "gelid_key_spin:",
    "mov esi, [rdi + 8]",
    "mov dword ptr [rdi + 16], 1",
    "xor r8d, r8d",
    "xor ecx, ecx",
    "xor edx, edx",
    "mov eax, esi",
    "wrpkru",
    "2:",
    "rdpkru",
    "cmp eax, esi",
    "setne al",
    "movzx eax, al",
    "add r8d, eax",
    "pause",
    "cmp dword ptr [rdi], 0",
    "je 2b",
    "xor eax, eax",
    "wrpkru",
    "lock add [rip + {deviations}], r8d",
    "lock inc dword ptr [rip + {ended}]",
    "xor eax, eax",
    "ret",
    deviations = sym DEVIATIONS, ended = sym ENDED,
);

/// Holds with a thread that has no rights to most memory. The C library knows nothing of it: the kernel would write to
/// what belongs to threads of the library.
fn forbidding(guest: &Guest, of_others: u32) -> Check {
    let key = alloc(0)?;
    let word = under(key, Map::anon(2 * PAGE)?, 6)?;
    word.set(0, 0);
    word.set(8, u64::from(of_others & !(3 << (2 * key))));
    word.set(16, 0);
    let stack = Map::anon(16 * PAGE)?;
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    type Spin = unsafe extern "C" fn(*mut libc::c_void) -> i32;
    type Code = extern "C" fn(*mut libc::c_void) -> i32;
    // SAFETY: these differ only in who has to know that the argument is there until the thread has ended.
    let code = unsafe { std::mem::transmute::<Spin, Code>(gelid_key_spin) };
    os!(libc::clone(code, stack.at(16 * PAGE), flags, word.at(0)))?;
    until("the thread runs", || Ok(word.get(16) != 0))?;
    guest.hold()?;
    word.set(0, 1);
    until("the thread ends", || Ok(ENDED.load(Ordering::SeqCst) == 1))?;
    same!("other rights", DEVIATIONS.load(Ordering::SeqCst), 0);
    stack.leak();
    Ok(())
}

fn key_read_only(guest: &Guest) -> Check {
    forbidding(guest, 0xaaaa_aaaa)
}

fn key_forbidden(guest: &Guest) -> Check {
    forbidding(guest, 0x5555_5555)
}

/// Seals a mapping.
fn seal(map: &Map, pages: usize) -> Check {
    const MSEAL: libc::c_long = 462;
    if os!(libc::syscall(MSEAL, map.addr(), pages * PAGE, 0)).is_err() {
        return Err(Failure::skip("no mseal(2)"));
    }
    Ok(())
}

fn sealed(guest: &Guest) -> Check {
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    let written = Map::anon(4 * PAGE)?;
    written.fill(0, 4, 82);
    let read_only = Map::anon(4 * PAGE)?;
    read_only.fill(0, 4, 83);
    read_only.protect(0, 4 * PAGE, libc::PROT_READ)?;
    let code = Map::anon(4 * PAGE)?;
    code.set(0, CODE);
    code.protect(0, 4 * PAGE, libc::PROT_EXEC)?;
    let path = guest.path("file");
    std::fs::write(&path, [7; 4 * PAGE])?;
    let file = File::options().read(true).write(true).open(&path)?;
    let shared = libc::MAP_SHARED;
    let file = Map::new(4 * PAGE, read_write, shared, file.as_raw_fd(), 0)?;
    let maps = [&written, &read_only, &code, &file];
    maps.iter().try_for_each(|map| seal(map, 4))?;
    let here = || -> Check {
        for map in maps {
            for refused in [
                map.protect(0, PAGE, libc::PROT_NONE),
                os!(libc::munmap(map.at(PAGE), PAGE)).map(drop),
            ] {
                ensure!(refused.is_err(), "sealed memory was changed");
                same!("why it was not", errno(), libc::EPERM);
            }
        }
        written.check("sealed memory", 0, 4, 82)?;
        read_only.check("sealed memory that can be read", 0, 4, 83)?;
        same!("a sealed function", run(&code), 42);
        same!("a sealed file", file.get(PAGE), 0x0707_0707_0707_0707);
        written.fill(0, 4, 82);
        Ok(())
    };
    let gate = Gate::new()?;
    let child = guest.fork("child", |guest| {
        gate.arrive()?;
        guest.wait();
        here()
    })?;
    gate.wait(1)?;
    guest.hold()?;
    here()?;
    child.join(guest)?;
    // Nobody can unmap them.
    [written, read_only, code, file]
        .into_iter()
        .for_each(Map::leak);
    Ok(())
}

fn execute_only(guest: &Guest) -> Check {
    catch()?;
    let written = Map::anon(2 * PAGE)?;
    written.set(0, CODE);
    written.protect(0, 2 * PAGE, libc::PROT_EXEC)?;
    let key = key_of(&written)?;
    if key == 0 {
        return Err(Failure::skip("no protection keys"));
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let mapped = Map::new(PAGE, libc::PROT_EXEC, flags, -1, 0)?;
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Check {
            set_rights(0);
            barrier.wait();
            guest.wait();
            same!("rights of the reader", rights(), 0);
            same!("what the reader reads", read(&written), CODE);
            same!("zeros", read(&mapped), 0);
            Ok(())
        });
        barrier.wait();
        let before = rights();
        guest.hold()?;
        same!("rights", rights(), before);
        for map in [&written, &mapped] {
            same!("key", key_of(map)?, key);
            let fault = fault(|| _ = read(map));
            same!("code and key of the fault", fault, (SEGV_PKUERR, key));
        }
        same!("the function", run(&written), 42);
        reader
            .join()
            .map_err(|_| Failure::new("a thread panicked"))?
    })
}
