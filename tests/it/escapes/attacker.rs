//! The attacker, and its prey: the test binary plays them.
#![expect(unsafe_code, reason = "no safe function does this")]

use std::ffi::c_long;
use std::io::Read;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{alarm, write};

/// What an attacker does; what it says then.
pub(super) type Attempt = fn(&Prey) -> Result<String, Errno>;

/// Names the row that is tried; `prey` is a process that is attacked.
pub(super) const TRY: &str = "TIDY_TRY";
pub(super) const PREY: &str = "prey";

/// What every environment of a prey has in it.
pub(super) const SECRET: &str = "TIDY_SECRET=open-sesame";

/// What an attacker knows.
#[derive(Debug)]
pub(super) struct Prey {
    /// A process of another tree of the same supervisor, and that tree's cgroup.
    pub(super) pid: i32,
    pub(super) dir: PathBuf,
    /// A byte of its memory.
    pub(super) address: usize,
    /// The run root: the supervisor's cgroup.
    pub(super) root: PathBuf,
    /// Fds that were left open for it: the run root, and its `cgroup.procs` for writing.
    pub(super) root_fd: RawFd,
    pub(super) procs_fd: RawFd,
    /// A directory of its own.
    pub(super) scratch: PathBuf,
    /// The name of an abstract socket on which the supervisor listens.
    pub(super) socket: String,
}

impl Prey {
    pub(super) fn variables(&self) -> [(&'static str, String); 8] {
        [
            ("TIDY_PREY_PID", self.pid.to_string()),
            ("TIDY_PREY_DIR", self.dir.display().to_string()),
            ("TIDY_PREY_ADDRESS", self.address.to_string()),
            ("TIDY_PREY_ROOT", self.root.display().to_string()),
            ("TIDY_PREY_ROOT_FD", self.root_fd.to_string()),
            ("TIDY_PREY_PROCS_FD", self.procs_fd.to_string()),
            ("TIDY_PREY_SCRATCH", self.scratch.display().to_string()),
            ("TIDY_PREY_SOCKET", self.socket.clone()),
        ]
    }

    fn known() -> Self {
        let text = |name: &str| std::env::var(format!("TIDY_PREY_{name}")).unwrap();
        Self {
            pid: text("PID").parse().unwrap(),
            dir: text("DIR").into(),
            address: text("ADDRESS").parse().unwrap(),
            root: text("ROOT").into(),
            root_fd: text("ROOT_FD").parse().unwrap(),
            procs_fd: text("PROCS_FD").parse().unwrap(),
            scratch: text("SCRATCH").into(),
            socket: text("SOCKET"),
        }
    }

    /// A file of the prey in `/proc`.
    pub(super) fn proc(&self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.pid).into()
    }
}

/// Before `main`, while there is one thread: a process with more makes no user namespace.
#[ctor::ctor]
unsafe fn enter() {
    let Some(name) = std::env::var_os(TRY) else { return };
    alarm::set(60);
    let said = match name.to_str() {
        Some(PREY) => be_prey(),
        Some(name) => {
            let row = super::find(name).expect("a row of this name");
            match (row.attempt)(&Prey::known()) {
                Ok(answer) => format!("done {answer}"),
                Err(errno) => format!("failed {errno:?}"),
            }
        }
        None => "no name".to_owned(),
    };
    say(&said);
    // The tester looks meanwhile, and closes the input then.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

/// Takes no signal, so that it can be seen which came.
fn be_prey() -> String {
    let all: u64 = u64::MAX;
    let (how, set) = (libc::SIG_SETMASK as usize, &raw const all as usize);
    call(libc::SYS_rt_sigprocmask, [how, set, 0, 8, 0]).unwrap();
    let byte: &'static mut u8 = Box::leak(Box::new(b'a'));
    format!("prey {}", std::ptr::from_mut(byte) as usize)
}

fn say(text: &str) {
    // SAFETY: it is started with this pipe.
    let stdout = unsafe { BorrowedFd::borrow_raw(libc::STDOUT_FILENO) };
    let line = text.replace('\n', " ") + "\n";
    let _ = write(stdout, line.as_bytes());
}

/// A raw system call.
pub(super) fn call(number: c_long, [a, b, c, d, e]: [usize; 5]) -> Result<usize, Errno> {
    // SAFETY: what it does to memory is harmless: this process is about to end.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, 0_usize) };
    Errno::result(answer).map(|answer| usize::try_from(answer).unwrap_or_default())
}

/// Runs in a new process, and says its pid or the errno; it lives as long as its parent.
pub(super) fn clone3(flags: u64, cgroup: RawFd) -> Result<String, Errno> {
    // As the kernel lays it out: flags first, the signal of the end fifth, the cgroup last. libc's
    // `clone_args` is not there for every machine.
    let mut args = [0; 11];
    (args[0], args[4], args[10]) = (flags, libc::SIGCHLD as u64, cgroup as u64);
    let place = &raw const args as usize;
    let pid = call(libc::SYS_clone3, [place, size_of_val(&args), 0, 0, 0])?;
    if pid == 0 {
        stay();
    }
    Ok(pid.to_string())
}

/// The same by clone(2).
pub(super) fn clone(flags: i32) -> Result<String, Errno> {
    let flags = (flags | libc::SIGCHLD) as usize;
    let pid = call(libc::SYS_clone, [flags, 0, 0, 0, 0])?;
    if pid == 0 {
        stay();
    }
    Ok(pid.to_string())
}

fn stay() -> ! {
    let _ =
        call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0]);
    alarm::set(60);
    loop {
        nix::unistd::pause();
    }
}

/// Calls getpid by the convention of 32-bit programs.
#[cfg(target_arch = "x86_64")]
pub(super) fn int_0x80() -> usize {
    let mut answer: usize = 20;
    // SAFETY: getpid touches no memory.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") answer, out("r8") _, out("r9") _,
        out("r10") _, out("r11") _)
    };
    answer
}
