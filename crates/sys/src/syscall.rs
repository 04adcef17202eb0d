//! The raw system call, for those that neither rustix nor libc wraps.

use rustix::io::{Errno, Result};

/// Enters system call `nr`.
///
/// # Safety
///
/// As for the call itself: pointers among `args` must be valid for what the kernel does with them.
pub(crate) unsafe fn call(nr: usize, args: [usize; 6]) -> Result<usize> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller vouches for the arguments.
    let result = unsafe { libc::syscall(nr as libc::c_long, a, b, c, d, e, f) };
    if result == -1 {
        Err(last())
    } else {
        Ok(result as usize)
    }
}

/// The calling thread's `errno`.
pub(crate) fn last() -> Errno {
    let raw = std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO);
    Errno::from_raw_os_error(raw)
}

/// Name of one of the system calls in [`nr`], for messages.
#[must_use]
pub fn name(number: usize) -> Option<&'static str> {
    let found = nr::NAMES.iter().find(|(nr, _)| *nr == number);
    found.map(|(_, name)| *name)
}

/// Numbers of the system calls that gelid writes on tapes, from the kernel's table for this machine.
pub mod nr {
    #![expect(
        non_upper_case_globals,
        reason = "the names are those of the kernel's table"
    )]

    macro_rules! numbers {
        ($($name:ident = $libc:ident;)*) => {
            $(#[doc = concat!("`", stringify!($name), "(2)`")]
            pub const $name: usize = libc::$libc as usize;)*

            pub(super) const NAMES: &[(usize, &str)] = &[$(($name, stringify!($name)),)*];
        };
    }

    numbers! {
        arch_prctl = SYS_arch_prctl;
        brk = SYS_brk;
        capget = SYS_capget;
        capset = SYS_capset;
        chdir = SYS_chdir;
        chroot = SYS_chroot;
        clock_nanosleep = SYS_clock_nanosleep;
        clone = SYS_clone;
        clone3 = SYS_clone3;
        close = SYS_close;
        close_range = SYS_close_range;
        connect = SYS_connect;
        dup2 = SYS_dup2;
        dup3 = SYS_dup3;
        epoll_ctl = SYS_epoll_ctl;
        epoll_pwait = SYS_epoll_pwait;
        epoll_pwait2 = SYS_epoll_pwait2;
        epoll_wait = SYS_epoll_wait;
        eventfd2 = SYS_eventfd2;
        exit = SYS_exit;
        exit_group = SYS_exit_group;
        fchdir = SYS_fchdir;
        fcntl = SYS_fcntl;
        flock = SYS_flock;
        fork = SYS_fork;
        fsconfig = SYS_fsconfig;
        fsmount = SYS_fsmount;
        fsopen = SYS_fsopen;
        fstat = SYS_fstat;
        futex = SYS_futex;
        get_robust_list = SYS_get_robust_list;
        getgroups = SYS_getgroups;
        getitimer = SYS_getitimer;
        getpid = SYS_getpid;
        getppid = SYS_getppid;
        getresgid = SYS_getresgid;
        getresuid = SYS_getresuid;
        getsockopt = SYS_getsockopt;
        io_getevents = SYS_io_getevents;
        io_setup = SYS_io_setup;
        io_submit = SYS_io_submit;
        ioctl = SYS_ioctl;
        ioprio_get = SYS_ioprio_get;
        ioprio_set = SYS_ioprio_set;
        kill = SYS_kill;
        listen = SYS_listen;
        lseek = SYS_lseek;
        madvise = SYS_madvise;
        membarrier = SYS_membarrier;
        memfd_create = SYS_memfd_create;
        mkdirat = SYS_mkdirat;
        mlock = SYS_mlock;
        mlock2 = SYS_mlock2;
        mlockall = SYS_mlockall;
        mmap = SYS_mmap;
        mount = SYS_mount;
        mount_setattr = SYS_mount_setattr;
        move_mount = SYS_move_mount;
        mprotect = SYS_mprotect;
        mremap = SYS_mremap;
        mseal = SYS_mseal;
        munmap = SYS_munmap;
        nanosleep = SYS_nanosleep;
        open = SYS_open;
        open_tree = SYS_open_tree;
        openat = SYS_openat;
        pause = SYS_pause;
        personality = SYS_personality;
        pidfd_getfd = SYS_pidfd_getfd;
        pidfd_open = SYS_pidfd_open;
        pipe2 = SYS_pipe2;
        pivot_root = SYS_pivot_root;
        pkey_alloc = SYS_pkey_alloc;
        pkey_free = SYS_pkey_free;
        pkey_mprotect = SYS_pkey_mprotect;
        poll = SYS_poll;
        prctl = SYS_prctl;
        prlimit64 = SYS_prlimit64;
        read = SYS_read;
        rseq = SYS_rseq;
        rt_sigaction = SYS_rt_sigaction;
        rt_sigpending = SYS_rt_sigpending;
        rt_sigprocmask = SYS_rt_sigprocmask;
        rt_sigqueueinfo = SYS_rt_sigqueueinfo;
        rt_sigtimedwait = SYS_rt_sigtimedwait;
        rt_tgsigqueueinfo = SYS_rt_tgsigqueueinfo;
        sched_getaffinity = SYS_sched_getaffinity;
        sched_getattr = SYS_sched_getattr;
        sched_setaffinity = SYS_sched_setaffinity;
        sched_setattr = SYS_sched_setattr;
        seccomp = SYS_seccomp;
        semop = SYS_semop;
        semtimedop = SYS_semtimedop;
        set_robust_list = SYS_set_robust_list;
        set_tid_address = SYS_set_tid_address;
        setdomainname = SYS_setdomainname;
        setfsgid = SYS_setfsgid;
        setfsuid = SYS_setfsuid;
        setgroups = SYS_setgroups;
        sethostname = SYS_sethostname;
        setitimer = SYS_setitimer;
        setns = SYS_setns;
        setpgid = SYS_setpgid;
        setpriority = SYS_setpriority;
        setresgid = SYS_setresgid;
        setresuid = SYS_setresuid;
        setsid = SYS_setsid;
        shmat = SYS_shmat;
        shmctl = SYS_shmctl;
        shmget = SYS_shmget;
        sigaltstack = SYS_sigaltstack;
        socketpair = SYS_socketpair;
        symlinkat = SYS_symlinkat;
        timer_create = SYS_timer_create;
        timer_delete = SYS_timer_delete;
        timer_getoverrun = SYS_timer_getoverrun;
        timer_gettime = SYS_timer_gettime;
        timer_settime = SYS_timer_settime;
        umask = SYS_umask;
        umount2 = SYS_umount2;
        unshare = SYS_unshare;
        userfaultfd = SYS_userfaultfd;
        wait4 = SYS_wait4;
        write = SYS_write;
    }
}
