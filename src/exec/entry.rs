//! Starts a command in a sandbox with a view of its own: by the set-up program, which makes the
//! namespaces, init and main, and says on a line how far it has come.
//!
//! The child that the supervisor makes is that program, and ends as soon as main and init are
//! there. Both are children of the supervisor too; their pidfds come over the line, so that each
//! is known by its handle from its birth on.

use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_char};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;

use crate::changes::{Changes, Layers};
use crate::containment::Placement;
use crate::error::{Error, Step, errno_of};
use crate::exec::announced::announced;
use crate::exec::launch::{Enter, Failed, Launch};
use crate::exec::overdue::{Answer, LATE_INTERVAL, Late, Overdue};
use crate::exec::set_up::SetUp;
use crate::overlay::layers;
use crate::sandbox::enclosure::Enclosure;
use crate::sandbox::ids::Ids;
use crate::sandbox::layout::news;
use crate::sandbox::template::{HandedOut, Lent};
use crate::sys::bury::{bury, kill_child, reap_child, reap_dying};
use crate::sys::inmates::AtEnd;
use crate::sys::{self, Newborn, above_two, pass, poll};

/// An enclosure, and the command that enters it.
pub(crate) struct Entry<'a> {
    pub(crate) enclosure: &'a Enclosure,
    pub(crate) ids: Ids,
    /// The fds above 2 that the command is to have.
    pub(crate) fds: &'a [RawFd],
    /// The host's side of each overlay, in the order of their pieces.
    hosts: RefCell<Vec<OwnedFd>>,
    /// Process 1 of the pid namespace, and the overlays, once they are there.
    init: Cell<Option<Newborn>>,
    changes: RefCell<Vec<Changes>>,
    listener: Cell<Option<TcpListener>>,
    /// What it is given of a template.
    lent: RefCell<Lent>,
    handed_out: Cell<HandedOut>,
    notices: Cell<Option<OwnedFd>>,
}

/// What the line has brought.
#[derive(Default)]
struct Heard {
    init: Option<Newborn>,
    main: Option<Newborn>,
    /// The upper directories of overlays.
    uppers: Vec<OwnedFd>,
    listener: Option<TcpListener>,
    handed_out: HandedOut,
    /// The listener of its filter.
    notices: Option<OwnedFd>,
    /// Those without a handle: killed, to be reaped by their number.
    strays: Vec<i32>,
    /// What came first.
    failed: Option<Failed>,
}

impl Heard {
    fn fail(&mut self, step: Step, errno: Errno) {
        self.failed.get_or_insert(Failed::At(step, errno));
    }

    /// Takes init or main, or kills it where there is no handle on it, which ends the line. Returns
    /// whether what is heard can be believed.
    fn take(&mut self, which: u32, pid: i32, pidfd: Option<OwnedFd>) -> bool {
        match announced(which, pid, pidfd) {
            Ok(init) if which == news::INIT => self.init = Some(init),
            Ok(main) => self.main = Some(main),
            Err(Errno::EPROTO) => {
                self.fail(Step::SetUp, Errno::EPROTO);
                return false;
            }
            Err(errno) => {
                kill_child(pid);
                self.strays.push(pid);
                self.fail(Step::Births, errno);
            }
        }
        true
    }
}

impl Enter for Entry<'_> {
    /// Starts the set-up program in the launch's cgroup; on return main has executed.
    fn enter(&self, launch: &mut Launch<'_>) -> Result<(Newborn, Placement), Failed> {
        let born = match self.born(launch) {
            // It runs as well without.
            Err(Failed::At(Step::Template, errno)) => {
                let goes_on = errno == Errno::ESTALE;
                *self.lent.borrow_mut() = self.enclosure.templates.drop_it(self.ids, goes_on);
                self.born(launch)
            }
            born => born,
        };
        born.map_err(|failed| named(failed, launch))
    }
}

impl<'a> Entry<'a> {
    /// Prepares: opens the host's side of each overlay.
    pub(crate) fn new(enclosure: &'a Enclosure, ids: Ids, fds: &'a [RawFd]) -> Result<Self, Error> {
        let hosts = enclosure.overlays().map(|dir| layers::host(&dir));
        let hosts = RefCell::new(hosts.collect::<Result<_, _>>()?);
        let lent = RefCell::new(enclosure.lend(ids));
        let (init, changes, listener, handed_out, notices) = Default::default();
        Ok(Self { enclosure, ids, fds, hosts, init, changes, listener, notices, lent, handed_out })
    }

    /// Hands over the overlays, once they are there.
    pub(crate) fn take_changes(&self) -> Vec<Changes> {
        self.changes.take()
    }

    /// Hands over the listening socket of a forwarded port, once it is there.
    pub(crate) fn take_listener(&self) -> Option<TcpListener> {
        self.listener.take()
    }

    /// Hands over the listener of its filter, once it is there.
    pub(crate) fn take_notices(&self) -> Option<OwnedFd> {
        self.notices.take()
    }

    /// Hands over process 1, once it is there, and what is to be done when it is reaped.
    pub(crate) fn take_init(&mut self) -> Option<(Newborn, AtEnd)> {
        let init = self.init.take()?;
        let rented = self.enclosure.templates.take(self.lent.get_mut(), self.handed_out.take());
        Some((
            init,
            rented
                .map(|rented| -> Box<dyn FnOnce() + Send> { Box::new(move || rented.give_back()) }),
        ))
    }

    fn born(&self, launch: &mut Launch<'_>) -> Result<(Newborn, Placement), Failed> {
        let failed = |errno| Failed::At(Step::SetUp, errno);
        let (line, theirs) = UnixStream::pair().map_err(|error| failed(errno_of(&error)))?;
        let theirs = above_two(theirs.into()).map_err(failed)?;
        launch.image.set_up = Some(self.set_up(launch, &theirs));
        let (program, placement) = launch.start()?;
        drop(theirs);
        self.give_word(&line);
        let mut overdue = launch.overdue();
        let heard = self.listen(line.as_fd(), &program, &mut overdue);
        drop(line);
        let main = self.came_of(heard, &program, overdue.error());
        main.map(|main| (main, placement))
    }

    /// Looks at the paths of the host while the command is being set up; it waits for the word that
    /// they are still those of its template.
    fn give_word(&self, line: &UnixStream) {
        let lent = self.lent.borrow();
        if lent.is_of_template() {
            let is_told =
                lent.fits(&self.enclosure.pieces) && sys::send(line.as_fd(), b'g').is_ok();
            if !is_told {
                // The end is a word, too. Where this fails the line has ended, which says more.
                let _ = line.shutdown(Shutdown::Write);
            }
        }
    }

    /// Lays out what the program is told.
    fn set_up(&self, launch: &Launch<'_>, line: &OwnedFd) -> SetUp {
        let (enclosure, image) = (self.enclosure, &*launch.image);
        let Ids { uid, gid, changes } = self.ids;
        let candidates = image.candidates.each();
        let own = [line, &enclosure.plan, &enclosure.ruleset].map(AsRawFd::as_raw_fd);
        let mut numbers: Vec<i64> = own.map(i64::from).to_vec();
        numbers.extend([i64::from(uid), i64::from(gid), i64::from(changes)]);
        numbers.push(launch.program.process_group.map_or(-1, i64::from));
        let lent = self.lent.borrow();
        let counts = [candidates.len(), enclosure.fail(&lent), self.fds.len()];
        numbers.extend(counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX)));
        numbers.extend(lent.numbers());
        numbers.extend(self.fds.iter().copied().map(i64::from));
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let numbers = CString::new(numbers.join(" ")).unwrap_or_default();
        let cwd = image.cwd.as_ref().map_or(c"/".as_ptr(), |cwd| cwd.as_ptr());
        let head: [*const c_char; 3] = [c"tidy-set-up".as_ptr(), numbers.as_ptr(), cwd];
        let argv = head.into_iter().chain(candidates.iter().copied());
        let argv = argv.chain(image.argv.each().iter().copied()).chain([ptr::null()]).collect();
        let fds = own.into_iter().chain(lent.fds()).chain(self.fds.iter().copied()).collect();
        SetUp { program: enclosure.program.as_raw_fd(), argv, fds, _numbers: numbers }
    }

    /// Listens until the line ends: the command was executed, or all that would have led to it have
    /// ended.
    fn listen(&self, line: BorrowedFd<'_>, program: &Newborn, overdue: &mut Overdue<'_>) -> Heard {
        let mut heard = Heard::default();
        loop {
            while !poll::readable(line, Some(Instant::now() + LATE_INTERVAL)).unwrap_or(true) {
                let answer = match &heard.main {
                    Some(main) => overdue.help(&Late::ours(main)),
                    None => overdue.help_program(&Late::ours(program)),
                };
                if answer != Answer::Wait {
                    return heard;
                }
            }
            match pass::receive_numbers(line) {
                Ok(None) => return heard,
                Ok(Some(([which @ (news::INIT | news::MAIN), pid, _], pidfd))) => {
                    if !heard.take(which, pid.cast_signed(), pidfd) {
                        return heard;
                    }
                }
                Ok(Some(([news::UPPER, ..], upper))) => {
                    let upper = upper.ok_or(Errno::EMFILE);
                    match upper.and_then(|upper| layers::upper(upper, self.ids.uid)) {
                        Ok(upper) => heard.uppers.push(upper),
                        Err(errno) => heard.fail(Step::Overlay, errno),
                    }
                }
                Ok(Some(([news::LISTENER, ..], socket))) => match self.enclosure.listener(socket) {
                    Ok(listener) => heard.listener = Some(listener),
                    Err(errno) => heard.fail(Step::Forward, errno),
                },
                Ok(Some(([which @ (news::USER_NAMESPACE..=news::SOCKETS), ..], fd))) => {
                    heard.handed_out.add(which, fd)
                }
                Ok(Some(([news::NOTICES, ..], fd))) => {
                    match fd.ok_or(Errno::EMFILE).and_then(above_two) {
                        Ok(fd) => heard.notices = Some(fd),
                        Err(errno) => heard.fail(Step::Listen, errno),
                    }
                }
                Ok(Some(([step, errno, index], _))) => {
                    heard.failed.get_or_insert_with(|| self.failure(step, errno, index));
                }
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    heard.fail(Step::SetUp, errno);
                    return heard;
                }
            }
        }
    }

    /// Reaps the program. Where main has not executed all three are killed, main before init, which
    /// ends only after it.
    fn came_of(
        &self,
        heard: Heard,
        program: &Newborn,
        given_up: Option<Error>,
    ) -> Result<Newborn, Failed> {
        let Heard { init, main, uppers, listener, notices, handed_out, strays, failed } = heard;
        let lacks = uppers.len() < self.enclosure.overlays().count()
            || listener.is_none() && self.enclosure.port().is_some()
            || notices.is_none() && self.enclosure.listens;
        let lacking = || lacks.then_some(Failed::At(Step::Births, Errno::ESRCH));
        let failed = given_up.map(Failed::Known).or(failed).or_else(lacking);
        match (failed, init, main) {
            (None, Some(init), Some(main)) => {
                reap_dying(program.pidfd.as_fd());
                self.init.set(Some(init));
                self.keep(uppers);
                self.listener.set(listener);
                self.handed_out.set(handed_out);
                self.notices.set(notices);
                Ok(main)
            }
            (failed, init, main) => {
                bury(program.pidfd.as_fd());
                main.iter().for_each(|main| bury(main.pidfd.as_fd()));
                strays.iter().rev().for_each(|pid| reap_child(*pid));
                init.iter().for_each(|init| bury(init.pidfd.as_fd()));
                // Without a word it was killed.
                Err(failed.unwrap_or(Failed::At(Step::Births, Errno::ESRCH)))
            }
        }
    }

    /// Puts both sides of each overlay together.
    fn keep(&self, uppers: Vec<OwnedFd>) {
        let sides = uppers.into_iter().zip(self.hosts.take());
        let layers = sides.map(|(upper, host)| Arc::new(Layers { upper, host }));
        let all = self.enclosure.overlays().zip(layers);
        *self.changes.borrow_mut() = all.map(|(dir, layers)| Changes { dir, layers }).collect();
    }

    fn failure(&self, step: u32, errno: u32, index: u32) -> Failed {
        let errno = Errno::from_raw(errno.cast_signed());
        let step = match step {
            news::IDENTITY => Step::Uid,
            news::USER => Step::UserNamespace,
            news::MAP => Step::IdMap,
            news::NAMESPACES => Step::Namespaces,
            news::NETWORK => Step::Network,
            news::FORWARD => Step::Forward,
            news::TEMPLATE => Step::Template,
            news::BIRTH => Step::Births,
            news::ROOT | news::PIVOT => Step::Root,
            news::VIEW => {
                let place = usize::try_from(index).ok();
                let piece = place.and_then(|place| self.enclosure.pieces.get(place));
                if let Some(error) = piece.and_then(|piece| piece.lacks(errno)) {
                    return Failed::Known(error);
                }
                let what = piece.map_or_else(String::new, ToString::to_string);
                let named = piece.is_some_and(|piece| piece.is_named());
                let step = if named { Step::Show } else { Step::Mount };
                return Failed::Known(Error::os(step, what, errno));
            }
            news::CHDIR => Step::ChdirInside,
            news::GROUP => Step::ProcessGroup,
            news::RIGHTS => Step::NoNewPrivs,
            news::FDS => Step::CloseFds,
            news::LANDLOCK => Step::Landlock,
            news::FILTER => Step::Seccomp,
            news::LISTEN => Step::Listen,
            news::SIGNALS => Step::Signals,
            news::EXEC => Step::Exec,
            _ => Step::SetUp,
        };
        Failed::At(step, errno)
    }
}

/// Names the directory that the sandbox does not have.
fn named(failed: Failed, launch: &Launch<'_>) -> Failed {
    match failed {
        Failed::At(step @ Step::ChdirInside, errno) => Failed::Known(Error::os(
            step,
            format!("{:?}", launch.image.cwd.as_deref().unwrap_or_default()),
            errno,
        )),
        failed => failed,
    }
}
