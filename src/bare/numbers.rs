//! The numbers that differ between machines: system calls, flags of open(2) and signals.

/// A row: its name, its value on x86_64 and on aarch64, and libc's name for it, which is asked on
/// other machines.
macro_rules! numbers {
    ($($name:ident, $x86_64:literal, $aarch64:literal, $libc:ident;)*) => {
        $(
            #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
            pub(crate) const $name: usize = $x86_64;
            #[cfg(target_arch = "aarch64")]
            pub(crate) const $name: usize = $aarch64;
            #[cfg(not(any(
                all(target_arch = "x86_64", target_pointer_width = "64"),
                target_arch = "aarch64"
            )))]
            pub(crate) const $name: usize = libc::$libc as usize;
        )*

        #[cfg(test)]
        mod tests {
            #[test]
            fn they_are_libcs() {
                $(
                    let libcs = usize::try_from(libc::$libc).ok();
                    assert_eq!(Some(super::$name), libcs, stringify!($name));
                )*
            }
        }
    };
}

numbers! {
    BIND,                    49,  200, SYS_bind;
    CAPSET,                 126,   91, SYS_capset;
    CHDIR,                   80,   49, SYS_chdir;
    CLOCK_GETTIME,          228,  113, SYS_clock_gettime;
    CLONE,                   56,  220, SYS_clone;
    CLOSE,                    3,   57, SYS_close;
    CLOSE_RANGE,            436,  436, SYS_close_range;
    EXECVE,                  59,  221, SYS_execve;
    EXIT_GROUP,             231,   94, SYS_exit_group;
    FCHDIR,                  81,   50, SYS_fchdir;
    FCHMOD,                  91,   52, SYS_fchmod;
    FCHMODAT,               268,   53, SYS_fchmodat;
    FCNTL,                   72,   25, SYS_fcntl;
    FSCONFIG,               431,  431, SYS_fsconfig;
    FSMOUNT,                432,  432, SYS_fsmount;
    FSOPEN,                 430,  430, SYS_fsopen;
    FUTEX,                  202,   98, SYS_futex;
    GETDENTS64,             217,   61, SYS_getdents64;
    GETPID,                  39,  172, SYS_getpid;
    GETPPID,                110,  173, SYS_getppid;
    IOCTL,                   16,   29, SYS_ioctl;
    KILL,                    62,  129, SYS_kill;
    LANDLOCK_RESTRICT_SELF, 446,  446, SYS_landlock_restrict_self;
    LISTEN,                  50,  201, SYS_listen;
    LSEEK,                    8,   62, SYS_lseek;
    MKDIRAT,                258,   34, SYS_mkdirat;
    MKNODAT,                259,   33, SYS_mknodat;
    MMAP,                     9,  222, SYS_mmap;
    MOUNT_SETATTR,          442,  442, SYS_mount_setattr;
    MOVE_MOUNT,             429,  429, SYS_move_mount;
    OPENAT,                 257,   56, SYS_openat;
    OPENAT2,                437,  437, SYS_openat2;
    OPEN_TREE,              428,  428, SYS_open_tree;
    PIDFD_OPEN,             434,  434, SYS_pidfd_open;
    PIDFD_SEND_SIGNAL,      424,  424, SYS_pidfd_send_signal;
    PIPE2,                  293,   59, SYS_pipe2;
    PIVOT_ROOT,             155,   41, SYS_pivot_root;
    PPOLL,                  271,   73, SYS_ppoll;
    PRCTL,                  157,  167, SYS_prctl;
    PRLIMIT64,              302,  261, SYS_prlimit64;
    READ,                     0,   63, SYS_read;
    RECVMSG,                 47,  212, SYS_recvmsg;
    RT_SIGACTION,            13,  134, SYS_rt_sigaction;
    RT_SIGPROCMASK,          14,  135, SYS_rt_sigprocmask;
    SECCOMP,                317,  277, SYS_seccomp;
    SENDMSG,                 46,  211, SYS_sendmsg;
    SETGROUPS,              116,  159, SYS_setgroups;
    SETNS,                  308,  268, SYS_setns;
    SETPGID,                109,  154, SYS_setpgid;
    SETPRIORITY,            141,  140, SYS_setpriority;
    SETRESGID,              119,  149, SYS_setresgid;
    SETRESUID,              117,  147, SYS_setresuid;
    SETSID,                 112,  157, SYS_setsid;
    SOCKET,                  41,  198, SYS_socket;
    STATX,                  332,  291, SYS_statx;
    SYMLINKAT,              266,   36, SYS_symlinkat;
    UMOUNT2,                166,   39, SYS_umount2;
    UNLINKAT,               263,   35, SYS_unlinkat;
    UNSHARE,                272,   97, SYS_unshare;
    WAIT4,                   61,  260, SYS_wait4;
    WAITID,                 247,   95, SYS_waitid;
    WRITE,                    1,   64, SYS_write;

    O_CLOEXEC,     0o2_000_000, 0o2_000_000, O_CLOEXEC;
    O_DIRECTORY,   0o200_000,   0o40_000,    O_DIRECTORY;
    O_NOFOLLOW,    0o400_000,   0o100_000,   O_NOFOLLOW;
    O_PATH,        0o10_000_000, 0o10_000_000, O_PATH;
    SIGSTOP,       19, 19, SIGSTOP;
    SIGURG,        23, 23, SIGURG;
}
