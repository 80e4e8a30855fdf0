//! Tries cgroups: makes a run root, freezes and kills a process in it, and removes all of it again.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::{geteuid, getppid};
use tidy_process::cli_support;
use tidy_process::{Child, Command, Containment, Error, Placement, Stdio, Supervisor};

use crate::doctor::finding::Finding;
use crate::doctor::host::{is_systemd, release};
use crate::exit::{Ended, Failure};
use crate::place::scope::{self, Wish};

/// The base that `run` would use, and the options that choose it.
pub(crate) struct Site {
    parent: Option<PathBuf>,
    no_systemd: bool,
    base: Result<PathBuf, Error>,
}

impl Site {
    pub(crate) fn find(parent: Option<PathBuf>, no_systemd: bool) -> Self {
        let base = cli_support::find_base(parent.as_deref());
        Self { parent, no_systemd, base }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.base.as_deref().ok()
    }

    pub(crate) fn finding(&self) -> Finding {
        let path = match &self.base {
            Err(error) => return Finding::error("base", error),
            Ok(path) => path,
        };
        let why = if self.parent.is_some() {
            "named by --parent".to_owned()
        } else if cli_support::named_base().is_some() {
            "named by TIDY_PROCESS_PARENT".to_owned()
        } else {
            let own = cli_support::own_path().unwrap_or_default();
            format!("the cgroup of this process, {}", own.display())
        };
        Finding::ok("base", format!("{}: {why}", path.display()))
            .fact("path", path.display().to_string())
    }

    /// Makes a supervisor as `run` with limits does: it may move this process to a systemd scope.
    fn supervisor(&self, guard: bool) -> Result<(Supervisor, Option<String>), Failure> {
        let wish = Wish {
            parent: self.parent.as_deref(),
            no_systemd: self.no_systemd,
            containment: Containment::Cgroup,
            controllers: true,
            verbose: false,
            sweep: false,
        };
        scope::supervisor(Supervisor::builder().sweep(false).guard(guard), &wish)
    }

    /// The option `--parent`, as it is typed.
    fn option(&self) -> String {
        self.parent.as_ref().map_or(String::new(), |path| format!(" --parent {}", path.display()))
    }
}

/// Lists what a sweep would remove, and removes nothing.
pub(crate) fn leftovers(site: &Site) -> Finding {
    let Some(base) = site.path() else {
        return Finding::blank("sweep", "not looked for: see base");
    };
    let base = scope::everywhere(site.parent.as_deref()).unwrap_or_else(|| base.to_owned());
    let found = match tidy_process::sweep(Some(&base), true) {
        Err(error) => return Finding::error("sweep", &error),
        Ok(found) => found,
    };
    let processes: usize = found.iter().map(|stale| stale.processes.len()).sum();
    let finding = match found.len() {
        0 => Finding::ok("sweep", format!("nothing is left of supervisors below {base:?}")),
        count => Finding::no(
            "sweep",
            format!("run roots whose owners are gone: {count}, with {processes} processes"),
        )
        .remedy(format!("tidy-process sweep{}", site.option())),
    };
    let paths: Vec<_> = found.iter().map(|stale| stale.path.display().to_string()).collect();
    finding.fact("run_roots", paths).fact("processes", processes)
}

/// Makes a run root with its guard, or without if the guard cannot start, and tries everything on
/// it. The finding on the kernel is returned, for the end of the table.
pub(crate) fn make(site: &Site, tell: &dyn Fn(Finding)) -> (Option<Supervisor>, Finding) {
    let (made, guard) = match site.supervisor(true) {
        Ok(made) => {
            let guard = guard(&made.0);
            (Ok(made), guard)
        }
        Err(Failure::Library(error)) if !error.is_no_cgroup() => {
            (site.supervisor(false), Finding::error("guard", &error))
        }
        Err(failure) => (Err(failure), Finding::blank("guard", "not tried: see create")),
    };
    let kernel = kernel(made.as_ref().err());
    match made {
        Ok((supervisor, scope)) => {
            tell(moved(scope.as_deref()));
            let name = supervisor.path().and_then(Path::file_name).unwrap_or_default().display();
            tell(Finding::ok("create", format!("made {name}, which goes with doctor")));
            tell(guard);
            on_a_process(&supervisor).into_iter().for_each(tell);
            (Some(supervisor), kernel)
        }
        Err(failure) => {
            tell(Finding::blank("scope", "none was entered: see create"));
            tell(refused(site, &failure));
            tell(guard);
            for name in ["kill", "freeze", "clone"] {
                tell(Finding::blank(name, "not tried: see create"));
            }
            (None, kernel)
        }
    }
}

/// The scope that this process has moved to, if it has: the probes that follow run there.
fn moved(scope: Option<&str>) -> Finding {
    match scope {
        Some(name) => {
            let found = "run asks systemd for a scope, for limits at least; so did doctor, and \
                         tries all that follows there";
            Finding::ok("scope", format!("{found}: {name}")).fact("name", name)
        }
        None => Finding::blank("scope", "run stays in the cgroup that it is started in"),
    }
}

fn guard(made: &Supervisor) -> Finding {
    if made.is_guarded() {
        return Finding::ok("guard", "it waits: it ends everything if tidy-process is killed");
    }
    Finding::no("guard", "it was started, and has ended at once")
        .remedy("see what kills it (dmesg, a security module), or do without: --no-guard")
}

/// Why no run root can be made; where no systemd can delegate a cgroup, how root does it by hand.
fn refused(site: &Site, failure: &Failure) -> Finding {
    let finding = Finding::failure("create", failure);
    let Failure::Library(error) = failure else { return finding };
    let denied = [Errno::EACCES as i32, Errno::EPERM as i32].map(Some);
    match site.path() {
        Some(base) if denied.contains(&error.raw_os_error()) && !is_systemd() => {
            finding.remedy(by_hand(base))
        }
        _ => finding,
    }
}

/// Whether the kernel has, and no filter refuses, pidfds and `cgroup.kill`: by what was tried, not
/// by its number, which is for information.
fn kernel(refused: Option<&Failure>) -> Finding {
    let release = release();
    if let Err((call, errno)) = cli_support::try_pidfds() {
        let found = format!("{release}; {call} is refused: {} ({errno:?})", errno.desc());
        return Finding::no("kernel", found).remedy(PIDFDS).fact("release", release);
    }
    let lacks = |failure: &Failure| failure.hint().is_some_and(|hint| hint.starts_with(NO_KILL));
    match refused {
        None => Finding::ok("kernel", format!("{release} has all that is needed")),
        Some(failure) if lacks(failure) => Finding::failure("kernel", failure),
        Some(_) => Finding::blank("kernel", format!("{release}; not tried: see create")),
    }
    .fact("release", release)
}

const PIDFDS: &str = "allow pidfd_open and pidfd_send_signal in the container's seccomp profile \
     (that of Docker 20.10 or newer does; kernels before 5.3 lack them)";

/// The beginning of the library's hint.
const NO_KILL: &str = "this kernel has no cgroup.kill";

/// What root types for an ordinary user, whose shell is the parent of this process.
fn by_hand(base: &Path) -> String {
    let (uid, shell) = (geteuid(), getppid());
    let dir = base.join(format!("user-{uid}"));
    let dir = dir.display();
    format!(
        "as root: mkdir {dir} && chown -R {uid} {dir} && echo {shell} >{dir}/cgroup.procs \
         ({shell} is the shell that started doctor; for good: tidy-process doctor --setup {uid} \
         --apply)"
    )
}

/// Freezes and kills a process that would run for as long as this one.
fn on_a_process(supervisor: &Supervisor) -> Vec<Finding> {
    let child = match idle(supervisor).spawn() {
        Ok(child) => child,
        Err(error) => return ["kill", "freeze", "clone"].map(|n| Finding::error(n, &error)).into(),
    };
    let freeze = freeze(&child);
    let kill = kill("kill", &child, "a process was gone");
    let clone = match child.finish() {
        Ok(report) => placed(report.placement),
        Err(error) => Finding::error("clone", &error),
    };
    vec![kill, freeze, clone]
}

fn kill(name: &'static str, child: &Child, found: &str) -> Finding {
    let start = Instant::now();
    let killed = child.kill();
    let took = start.elapsed().as_secs_f64() * 1e3;
    match killed.and_then(|()| child.wait()).map(|status| status.signal()) {
        Ok(Some(libc::SIGKILL)) => Finding::ok(name, format!("{found} in {took:.1} ms")),
        Ok(_) => Finding::no(name, "the process ended in another way than by SIGKILL"),
        Err(error) => Finding::error(name, &error),
    }
}

/// Tries a keeper, which needs no cgroup.
pub(crate) fn keeper() -> Finding {
    let made = Supervisor::builder().containment(Containment::Keeper).build();
    match made.and_then(|supervisor| idle(&supervisor).spawn()) {
        Ok(child) => {
            let found = "for --containment best-effort: a keeper's process was gone";
            kill("keeper", &child, found)
        }
        Err(error) => Finding::error("keeper", &error),
    }
}

/// Makes a command of this very program, which reads its input to the end, and so ends with doctor.
fn idle(supervisor: &Supervisor) -> Command {
    let mut command = own_program(supervisor);
    command.arg("idle");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Makes a command of this very program.
pub(crate) fn own_program(supervisor: &Supervisor) -> Command {
    let own = Path::new("/proc/self/exe");
    // In a chroot without /proc: the name by which this process was started.
    let named = || std::env::args_os().next().unwrap_or_default();
    let program = if own.exists() { own.into() } else { named() };
    let mut command = Command::new(program);
    command.supervisor(supervisor);
    command
}

/// `tidy-process idle`, hidden: waits for the end of its input.
pub(crate) fn be_idle() -> Ended {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    Ended { exit: 0, by_signal: None }
}

fn freeze(child: &Child) -> Finding {
    match child.tree().freeze() {
        Ok(true) => Finding::ok("freeze", "a process was stopped where it was"),
        Ok(false) => Finding::no("freeze", "a process did not stop within 1 s"),
        Err(error) => Finding::error("freeze", &error),
    }
}

fn placed(placement: Placement) -> Finding {
    if placement == Placement::Born {
        return Finding::ok("clone", "a process was born in its cgroup (CLONE_INTO_CGROUP)");
    }
    let joins = "processes fork and join, which works and is slower";
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return Finding::no("clone", format!("it is not written for this processor: {joins}"));
    }
    if cli_support::clone_refused() {
        let found = format!("clone3 is refused, by a seccomp filter mostly: {joins}");
        let remedy = "allow clone3 in the container's seccomp profile";
        return Finding::no("clone", found).remedy(remedy);
    }
    let found = format!("a child is killed at birth, since this cgroup was killed once: {joins}");
    let remedy =
        "start again in a new cgroup (log in anew), or update the kernel (6.12.115 is fine)";
    Finding::no("clone", found).remedy(remedy)
}
