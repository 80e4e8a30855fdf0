//! The loop: looks when a look is due, draws, answers keys and signals.

use std::io::stdin;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, poll, read};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tidy_process::cli_support::quoted;

use crate::exit::{Ended, Failure};
use crate::print::text;
use crate::top::act::{Acts, Deed, Question};
use crate::top::draw::{self, Foot};
use crate::top::keys::{self, Key};
use crate::top::model::{Model, Tree};
use crate::top::sample::{Sampler, own_cpu};
use crate::top::screen::{Heard, Screen};
use crate::wait::signals::suspend;

/// The time between two looks while something is being stopped or killed.
const SOON: Duration = Duration::from_millis(100);

/// How long a message stays.
const SAID_FOR: Duration = Duration::from_secs(5);

/// What the keys go to.
enum Mode {
    Trees,
    Filter,
    Asked(Question),
    Help,
}

/// How it ends.
enum End {
    /// By a key.
    Key,
    By(Signal),
}

pub(crate) struct Live {
    sampler: Sampler,
    model: Model,
    mode: Mode,
    acts: Acts,
    said: Option<(String, Instant)>,
    /// Trees that are left frozen, to be named at the end.
    left: Vec<String>,
    redraw: bool,
}

impl Live {
    pub(crate) fn new(sampler: Sampler, model: Model, grace: Duration) -> Self {
        let acts = Acts::new(grace);
        let (mode, left) = (Mode::Trees, Vec::new());
        Self { sampler, model, mode, acts, said: None, left, redraw: true }
    }

    pub(crate) fn run(mut self) -> Result<Ended, Failure> {
        let heard = Heard::collect()?;
        let mut screen = Screen::show().map_err(Failure::Terminal)?;
        let ended = self.watch(&heard, &mut screen);
        // The terminal first: what is under way may take as long as a grace.
        drop(screen);
        self.acts.end(|| heard.asks_to_end());
        for name in &self.left {
            text::line(format_args!(
                "{name} is still frozen: tidy-process thaw lets it go on, as t in top does"
            ));
        }
        let by_signal = match ended? {
            End::Key => None,
            End::By(signal) => Some(signal),
        };
        Ok(Ended { exit: 0, by_signal })
    }

    fn watch(&mut self, heard: &Heard, screen: &mut Screen) -> Result<End, Failure> {
        loop {
            self.look();
            if self.redraw {
                self.draw(screen)?;
            }
            if !self.sleep(heard)? {
                return Ok(End::By(Signal::SIGHUP));
            }
            while let Some(signal) = heard.next()? {
                match signal {
                    Signal::SIGWINCH => self.afresh(screen)?,
                    Signal::SIGCONT => self.show_again(screen)?,
                    Signal::SIGTSTP => {
                        screen.hide();
                        suspend()?;
                        self.show_again(screen)?;
                    }
                    signal => return Ok(End::By(signal)),
                }
            }
            while poll(Duration::ZERO).map_err(Failure::Terminal)? {
                let event = read().map_err(Failure::Terminal)?;
                self.redraw = true;
                if let Event::Key(key) = event
                    && keys::is_press(&key)
                    && self.answer(&key, screen)?
                {
                    return Ok(End::Key);
                }
            }
        }
    }

    fn afresh(&mut self, screen: &mut Screen) -> Result<(), Failure> {
        self.redraw = true;
        screen.afresh().map_err(Failure::Terminal)
    }

    fn show_again(&mut self, screen: &mut Screen) -> Result<(), Failure> {
        self.redraw = true;
        screen.show_again().map_err(Failure::Terminal)
    }

    /// Looks at what is due. Rows that have come to the screen are looked at at once.
    fn look(&mut self) {
        if self.sampler.scan.is_due() {
            self.sampler.scan(&mut self.model);
            self.redraw = true;
        }
        let shown = self.model.on_screen();
        let is_new = |tree: &Tree| {
            tree.pids.is_none() || tree.unfolded && tree.processes.is_empty() && tree.populated
        };
        let (new, old): (Vec<_>, Vec<_>) =
            shown.iter().copied().partition(|id| self.model.trees.get(id).is_some_and(is_new));
        let due = self.sampler.detail.is_due();
        let before = own_cpu();
        if due || !new.is_empty() {
            self.sampler.detail(&mut self.model, &new);
            self.redraw = true;
        }
        if due {
            self.sampler.detail(&mut self.model, &old);
            self.sampler.detail.spent(own_cpu().saturating_sub(before));
        }
        if self.sampler.ports.is_due() {
            self.sampler.ports(&mut self.model, &shown);
            self.redraw = true;
        }
        if let Some(said) = self.acts.go_on() {
            self.say(said);
            // What was done is to be seen.
            self.sampler.detail.due = Instant::now();
        }
        if self.said.as_ref().is_some_and(|(_, until)| *until <= Instant::now()) {
            self.said = None;
            self.redraw = true;
        }
    }

    fn say(&mut self, text: String) {
        self.said = Some((text, Instant::now() + SAID_FOR));
        self.redraw = true;
    }

    fn draw(&mut self, screen: &mut Screen) -> Result<(), Failure> {
        self.redraw = false;
        let foot = match &self.mode {
            Mode::Help => Foot::Help,
            Mode::Filter => Foot::Filter,
            Mode::Asked(question) => Foot::Question(question.text()),
            Mode::Trees => match &self.said {
                Some((text, _)) => Foot::Said(text.clone()),
                None => Foot::Keys,
            },
        };
        let all_users = self.sampler.has_all_users();
        let (model, terminal) = (&mut self.model, &mut screen.terminal);
        let drawn = terminal.draw(|frame| draw::draw(frame, model, &foot, all_users));
        drawn.map(drop).map_err(Failure::Terminal)
    }

    /// Sleeps until a key or a signal comes or a look is due; false if the terminal has gone.
    fn sleep(&self, heard: &Heard) -> Result<bool, Failure> {
        let mut due = self.sampler.due();
        if self.acts.is_busy() {
            due = due.min(Instant::now() + SOON);
        }
        if let Some((_, until)) = &self.said {
            due = due.min(*until);
        }
        let left = due.saturating_duration_since(Instant::now());
        // Rounded up: it would wake too early, and again.
        let left =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let stdin = stdin();
        let mut fds = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(heard.as_fd(), PollFlags::POLLIN),
        ];
        match nix::poll::poll(&mut fds, left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        Ok(!fds[0].revents().is_some_and(|events| events.intersects(gone)))
    }

    /// Answers a key; true if it ends all.
    fn answer(&mut self, key: &KeyEvent, screen: &mut Screen) -> Result<bool, Failure> {
        match std::mem::replace(&mut self.mode, Mode::Trees) {
            Mode::Help => {}
            Mode::Filter => {
                if keys::edit(&mut self.model.filter, key) {
                    self.mode = Mode::Filter;
                }
                self.model.lay_out();
            }
            Mode::Asked(question) => return Ok(self.decide(question, key)),
            Mode::Trees => {
                let Some(meant) = keys::meaning(key) else { return Ok(false) };
                return self.obey(meant, screen);
            }
        }
        Ok(false)
    }

    /// Does what was asked about, or not; true if it ends all.
    fn decide(&mut self, question: Question, key: &KeyEvent) -> bool {
        let answer = match key.code {
            KeyCode::Char(c) if key.modifiers.is_empty() => Some(c),
            _ => None,
        };
        match (question, answer) {
            (Question::Do(deed, held, [name, _]), Some('y')) => {
                let said = self.acts.perform(deed, held, name);
                self.say(said);
                self.sampler.detail.due = Instant::now();
                false
            }
            (Question::Leave(_), Some('y')) => true,
            (Question::Leave(_), Some('n')) => {
                self.left = self.acts.leave();
                true
            }
            (Question::Do(..) | Question::Leave(_), _) => {
                self.say("not done".to_owned());
                false
            }
        }
    }

    fn obey(&mut self, key: Key, screen: &mut Screen) -> Result<bool, Failure> {
        let (cursor, height) = (self.model.cursor, self.model.height.max(1));
        let moved = |by: isize| cursor.saturating_add_signed(by);
        match key {
            Key::Quit => match self.acts.frozen() {
                0 => return Ok(true),
                count => self.mode = Mode::Asked(Question::Leave(count)),
            },
            Key::Move(by) => self.model.go_to(moved(by)),
            Key::Page(by) => self.model.go_to(moved(by.saturating_mul(height.cast_signed()))),
            Key::First => self.model.go_to(0),
            Key::Last => self.model.go_to(usize::MAX),
            Key::Fold => self.model.fold(),
            Key::Do(deed) => self.ask(deed),
            Key::Order(forth) => {
                self.model.order_by_next(forth);
                self.sampler.scan.due = Instant::now();
            }
            Key::Reverse => {
                self.model.reversed = !self.model.reversed;
                self.model.lay_out();
            }
            Key::Filter => self.mode = Mode::Filter,
            Key::ShowAll => {
                self.model.filter.clear();
                self.model.lay_out();
            }
            Key::Help => self.mode = Mode::Help,
            Key::Redraw => self.afresh(screen)?,
            // To all of the job, as the terminal does it; answered as a signal.
            Key::Suspend => kill(Pid::from_raw(0), Signal::SIGTSTP)?,
        }
        Ok(false)
    }

    fn ask(&mut self, deed: Deed) {
        let Some(tree) = self.model.chosen() else {
            return self.say("there is no tree".to_owned());
        };
        match Acts::ask(&self.sampler.lookout, deed, tree) {
            Ok(question) => self.mode = Mode::Asked(question),
            Err(why) => {
                self.say(quoted(&why));
                self.sampler.scan.due = Instant::now();
            }
        }
    }
}
