//! Starts a command: puts the stages of a spawn together.

use std::ffi::OsStr;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use crate::cgroup::Cgroup;
use crate::cgroup::names::checked;
use crate::child::Child;
use crate::child::finish::with_report;
use crate::child::output::Output;
use crate::command::Command;
use crate::confinement::Property;
use crate::containment::Placement;
#[cfg(feature = "sandbox")]
use crate::error::Step;
use crate::error::advice::CONFINED_OR_DELEGATED;
use crate::error::place::about;
use crate::error::{Error, Result};
use crate::exec::child_side::Closure;
use crate::exec::entry::Entry;
use crate::exec::image::Image;
use crate::exec::launch::{Enter, Home, Launch};
use crate::exec::stdio::{ChildStream, Stdio};
use crate::explain::{Explainer, Line};
use crate::keeper::backend::refuse;
use crate::log::reader::Record;
use crate::report::{Cause, Report};
use crate::sandbox::Prepared;
#[cfg(feature = "sandbox")]
use crate::sandbox::fds::check_stream;
#[cfg(feature = "sandbox")]
use crate::sandbox::ids::Ids;
use crate::supervisor::Supervisor;
use crate::sys::Newborn;
use crate::tree::Tree;

/// Whether a wait collects what goes to the output streams that are not set otherwise; a log then
/// gets a copy.
#[derive(Clone, Copy)]
pub(crate) enum Collects {
    Yes,
    No,
}

impl Command {
    /// Starts the command in a fresh cgroup of its own. On return it has executed.
    ///
    /// # Cleanup
    /// The tree ends with the returned [`Child`]. After an error nothing is left: no process, no
    /// cgroup, no fd.
    ///
    /// # Errors
    /// The text names the step: no cgroup can be made here ([`is_no_cgroup`]), the program is
    /// missing ([`is_not_found`]) or cannot be executed, the directory or user is wrong, a string
    /// holds a NUL byte, fds or processes have run out.
    ///
    /// [`is_no_cgroup`]: crate::Error::is_no_cgroup
    /// [`is_not_found`]: crate::Error::is_not_found
    pub fn spawn(&mut self) -> Result<Child> {
        self.spawn_with([Stdio::inherit(), Stdio::inherit(), Stdio::inherit()], Collects::No)
    }

    /// Runs the command to the end of its main process, then ends the tree.
    ///
    /// # Errors
    /// As for [`spawn`](Self::spawn) and [`Child::finish`].
    pub fn run(&mut self) -> Result<Report> {
        self.run_then(Child::finish)
    }

    fn run_then(&mut self, finish: fn(&Child) -> Result<Report>) -> Result<Report> {
        let mut child = self.spawn()?;
        drop(child.stdin.take());
        let waited = child.wait_alone();
        with_report(waited, finish(&child)).map(|((), report)| report)
    }

    /// As [`run`](Self::run), for the exit status alone.
    ///
    /// A timeout is an error: a command may catch the stop signal and exit with 0, which a status
    /// cannot tell from success.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and the command timed out or used up its CPU time
    /// ([`Error::is_timed_out`]).
    pub fn status(&mut self) -> Result<ExitStatus> {
        let report = self.run_then(Child::finish_uncounted)?;
        let (what, time) = match report.cause {
            Cause::TimedOut => ("timed out after", self.policy.timeout),
            Cause::CpuTimeExceeded => ("used up its CPU time of", self.policy.cpu_time),
            _ => return Ok(report.status),
        };
        let why = format!("{what} {:?}", time.unwrap_or_default());
        Err(Error::timed_out(format!("{:?}", self.program.program), why, report.status))
    }

    /// Runs the command and collects what it writes; streams not set otherwise are piped, stdin is
    /// `/dev/null`.
    ///
    /// It ends when the *main process* ends, even if others hold the pipes: once what works has
    /// [settled](Self::settle) the tree is torn down, then the pipes are drained.
    /// [`linger`](Self::linger) waits for the whole tree.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and reading may fail.
    pub fn output(&mut self) -> Result<Output> {
        let defaults = [Stdio::null(), Stdio::piped(), Stdio::piped()];
        self.spawn_with(defaults, Collects::Yes)?.wait_with_output()
    }

    pub(crate) fn spawn_with(&mut self, defaults: [Stdio; 3], collects: Collects) -> Result<Child> {
        // Taken out for a while: the launch borrows the streams together with the mutable closures.
        let mut closures = std::mem::take(&mut self.closures);
        let spawned = self.spawn_calling(&mut closures, &defaults, collects);
        self.closures = closures;
        about(spawned, &self.program.program, self.program.cwd.as_deref())
    }

    /// Spawns with these closures. All that can fail or allocate comes before the launch; a failure
    /// drops the tree, and with it the cgroup.
    fn spawn_calling(
        &self,
        closures: &mut [Closure],
        defaults: &[Stdio; 3],
        collects: Collects,
    ) -> Result<Child> {
        let spawned = Instant::now();
        self.check_request()?;
        let mut image = Image::new(&self.program, !closures.is_empty())?;
        let log = self.kept_output(collects)?;
        let streams = self.child_streams(&log, defaults)?;
        let supervisor = self.supervisor.clone().map_or_else(Supervisor::global, Ok)?;
        let prepared = self.prepared(Some(&supervisor))?;
        let fds = self.fds_to_keep(Some(&supervisor), prepared.is_some())?;
        let line = Line::of(prepared.as_deref())?;
        let confine = Line::confinement(prepared.as_deref(), line.as_ref());
        let mut entry = self.entry(prepared.as_deref(), closures, &streams, &mut image)?;
        let until = self.policy.timeout.and_then(|timeout| spawned.checked_add(timeout));
        let enter = entry.as_ref().map(|entry| entry as &dyn Enter);
        let lent = (closures, &mut image, &streams, enter);
        let launch = |home| {
            let (closures, image, streams, entry) = lent;
            let (program, force_join) = (&self.program, self.force_join);
            Launch {
                program,
                closures,
                force_join,
                fds,
                image,
                streams,
                home,
                confine,
                entry,
                until,
            }
        };
        supervisor.check_open()?;
        let partner = self.partner(&supervisor)?;
        let pending = self.pending()?;
        let (newborn, placement, tree) = if let Some(keepers) = supervisor.keepers() {
            self.may_be_kept(entry.is_some())?;
            let (newborn, kept) = launch(Home::Kept).hire(&keepers.ground)?;
            let kept = keepers.note(kept);
            (newborn, Placement::Kept, Tree::kept(&supervisor, kept))
        } else {
            let mut tree = self.tree(&supervisor)?;
            let (entry, root) = (tree.entry("launch")?, &supervisor.ground("launch")?.cgroup);
            let (newborn, placement) = born(launch(Home::Cgroup { entry, root }), root)?;
            tree.born(newborn.pid);
            (newborn, placement, tree)
        };
        let newborn = newborn.above_the_streams();
        let mut child = Child::new(newborn, placement, self.policy, spawned, tree);
        child.ending.die_with(partner);
        hand_over(&mut child, streams);
        entry.iter_mut().for_each(|entry| furnish(&mut child, entry));
        child.confined = prepared.as_deref().map(Prepared::confined);
        let notices = entry.as_ref().and_then(Entry::take_notices);
        child.explainer = Explainer::of(prepared.as_deref(), notices, line)?;
        child.log = log.start()?;
        self.record_child(pending, &mut child);
        Ok(child)
    }

    fn kept_output(&self, collects: Collects) -> Result<Record> {
        let [_, stdout, stderr] = &self.streams;
        match collects {
            Collects::No => Record::open(self.log.as_ref()),
            Collects::Yes => {
                Ok(Record::copied(self.log.as_ref(), [stdout.is_none(), stderr.is_none()]))
            }
        }
    }

    fn child_streams<'a>(
        &'a self,
        log: &'a Record,
        defaults: &'a [Stdio; 3],
    ) -> Result<[ChildStream<'a>; 3]> {
        let [stdin, stdout, stderr] = &self.streams;
        let [in_default, out_default, err_default] = defaults;
        let out_default = log.stdio().unwrap_or(out_default);
        let err_default = log.stdio().unwrap_or(err_default);
        Ok([
            ChildStream::make(0, stdin.as_ref().unwrap_or(in_default))?,
            ChildStream::make(1, stdout.as_ref().unwrap_or(out_default))?,
            ChildStream::make(2, stderr.as_ref().unwrap_or(err_default))?,
        ])
    }

    /// What confines the child: as it is asked for, else as its supervisor has it.
    pub(crate) fn prepared(
        &self,
        supervisor: Option<&Supervisor>,
    ) -> Result<Option<Arc<Prepared>>> {
        let default = || supervisor.and_then(Supervisor::sandbox);
        let Some(sandbox) = self.sandbox.as_ref().or_else(default) else { return Ok(None) };
        if self.delegate {
            let why = "delegate would give it a cgroup to write to";
            return Err(Error::unconfinable(Property::Inside, why, CONFINED_OR_DELEGATED));
        }
        sandbox.prepare().map(Some)
    }

    /// Prepares for a view of its own: another environment, and the user that the command is there.
    #[cfg(feature = "sandbox")]
    fn entry<'a>(
        &self,
        prepared: Option<&'a Prepared>,
        closures: &[Closure],
        streams: &[ChildStream<'_>; 3],
        image: &mut Image,
    ) -> Result<Option<Entry<'a>>> {
        let enclosed = prepared.and_then(|made| Some((made.enclosure()?, made.fds())));
        let Some((enclosure, fds)) = enclosed else { return Ok(None) };
        let no = |why| Err(Error::invalid(Step::Prepare, "the sandbox", why));
        if !closures.is_empty() {
            return no("pre_exec closures run in no sandbox");
        }
        if self.program.groups.as_ref().is_some_and(|groups| !groups.is_empty()) {
            return no("it has no supplementary groups to set");
        }
        for (number, stream) in (0..).zip(streams) {
            check_stream(number, stream.child)?;
        }
        if self.program.session || self.program.umask.is_some() {
            return no("it has a session and a umask of its own: setsid and umask are not for it");
        }
        let ids = Ids::of(self.program.uid, self.program.gid)?;
        *image = Image::confined(&self.program, &|key| enclosure.keeps(key))?;
        Entry::new(enclosure, ids, fds).map(Some)
    }

    #[cfg(not(feature = "sandbox"))]
    fn entry<'a>(
        &self,
        _: Option<&'a Prepared>,
        _: &[Closure],
        _: &[ChildStream<'_>; 3],
        _: &mut Image,
    ) -> Result<Option<Entry<'a>>> {
        Ok(None)
    }

    fn may_be_kept(&self, enters: bool) -> Result<()> {
        if enters {
            return Err(Error::unsupported("a sandbox", false));
        }
        self.name.as_deref().map(checked).transpose()?;
        refuse(&self.limits)?;
        if self.delegate {
            return Err(Error::unsupported("delegate", false));
        }
        Ok(())
    }

    fn tree(&self, supervisor: &Supervisor) -> Result<Tree> {
        let mut tree = Tree::make(supervisor, self.name.as_deref(), &self.limits)?;
        if self.delegate {
            tree.delegate(self.program.uid, self.program.gid)?;
        }
        Ok(tree)
    }
}

/// Gives a child this process's ends of its pipes, and closes those that are the child's.
fn hand_over(child: &mut Child, streams: [ChildStream<'_>; 3]) {
    let [stdin, stdout, stderr] = streams.map(|stream| stream.ours);
    child.stdin = stdin.map(Into::into);
    child.stdout = stdout.map(Into::into);
    child.stderr = stderr.map(Into::into);
}

/// Hands a child what comes with a view of its own.
fn furnish(child: &mut Child, entry: &mut Entry<'_>) {
    entry.take_init().into_iter().for_each(|(init, at_end)| child.inhabit(init, at_end));
    #[cfg(feature = "sandbox")]
    {
        child.changes = entry.take_changes();
        child.forwarded = entry.take_listener();
    }
}

/// Launches the child; where an earlier command has taken the permissions of the supervisor's
/// directories away, restores them and tries once more.
fn born(mut launch: Launch<'_>, root: &Cgroup) -> Result<(Newborn, Placement)> {
    match launch.launch() {
        Err(error) if error.is_no_cgroup() && error.raw_os_error() == Some(libc::EACCES) => {
            // Nothing of the command has run.
            root.restore_entry_modes();
            launch.launch()
        }
        launched => launched,
    }
}

impl Supervisor {
    /// Makes a command whose tree will be in this supervisor.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.supervisor(self);
        command
    }

    /// Makes an empty tree of this name in this supervisor.
    ///
    /// # Errors
    /// As for [`Tree::within`].
    pub fn tree(&self, name: &str) -> Result<Tree> {
        Tree::within(self, Some(name))
    }
}
