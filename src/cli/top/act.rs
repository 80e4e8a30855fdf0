//! Acts on trees: asks first, holds the tree that was asked about, and forgets none that it froze.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tidy_process::cli_support::{Held, Lookout, quoted, shortened};

use crate::top::model::Tree;

/// What may be done to a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Stop,
    Kill,
    Freeze,
    Thaw,
}

impl Deed {
    fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
        }
    }
}

/// What is asked before it is done.
pub(crate) enum Question {
    /// To the tree that is held: what has its name by then is another. With its name, and with
    /// what there is of it.
    Do(Deed, Held, [String; 2]),
    /// What becomes of trees that this process froze and that stand still now.
    Leave(usize),
}

impl Question {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Do(deed, _, [_, what]) => {
                format!("{} {what}? y does it, any other key not", deed.word())
            }
            Self::Leave(1) => "thaw the tree that you froze? y yes, n leave it frozen".to_owned(),
            Self::Leave(count) => {
                format!("thaw the {count} trees that you froze? y yes, n leave them frozen")
            }
        }
    }
}

/// A tree that was acted on, and its name.
struct Known {
    held: Held,
    name: String,
}

/// What goes on.
pub(crate) struct Acts {
    grace: Duration,
    /// Asked to stop, and when they are killed.
    stopping: Vec<(Known, Option<Instant>)>,
    /// Frozen by this process; thawed when it ends by whatever is no answer to `Question::Leave`.
    frozen: Vec<Known>,
    killers: Vec<JoinHandle<()>>,
    says: Sender<String>,
    said: Receiver<String>,
}

impl Acts {
    pub(crate) fn new(grace: Duration) -> Self {
        let (says, said) = channel();
        let (stopping, frozen, killers) = (Vec::new(), Vec::new(), Vec::new());
        Self { grace, stopping, frozen, killers, says, said }
    }

    /// Takes hold of the tree and makes the question; or says why not.
    pub(crate) fn ask(lookout: &Lookout, deed: Deed, tree: &Tree) -> Result<Question, String> {
        let name = format!("{} of {}", shortened(&tree.name, 40), tree.seen.owner);
        let held = lookout.hold(&tree.seen).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV) => format!("{name} has ended"),
            _ => error.to_string(),
        })?;
        if deed != Deed::Thaw && held.has_this_process() {
            return Err(format!("this tidy-process runs in {name}: it would be its own victim"));
        }
        let what = match tree.count() {
            Some(1) => format!("{name}, 1 process"),
            Some(count) => format!("{name}, {count} processes"),
            None => name.clone(),
        };
        Ok(Question::Do(deed, held, [name, what]))
    }

    /// Does it; returns what there is to say.
    pub(crate) fn perform(&mut self, deed: Deed, held: Held, name: String) -> String {
        let done = match deed {
            Deed::Kill => {
                self.kill(Known { held, name: name.clone() });
                return format!("killing {name}");
            }
            Deed::Stop => held.stop().map(drop),
            Deed::Freeze => held.set_frozen(true),
            Deed::Thaw => held.set_frozen(false),
        };
        if let Err(error) = done {
            return format!("{} {name}: {error}", deed.word());
        }
        match deed {
            Deed::Stop => {
                let until = Instant::now().checked_add(self.grace);
                self.stopping.push((Known { held, name: name.clone() }, until));
                format!("stopping {name}")
            }
            Deed::Freeze => {
                self.frozen.push(Known { held, name: name.clone() });
                format!("{name} stands still; t thaws it")
            }
            _ => {
                self.frozen.retain(|known| known.held.path() != held.path());
                format!("{name} goes on")
            }
        }
    }

    /// Kills in a thread: a process in the kernel's hands may take long to die.
    fn kill(&mut self, Known { held, name }: Known) {
        let says = self.says.clone();
        let kills = move || {
            let said = match held.kill() {
                Ok(()) => format!("killed {name}"),
                Err(error) => format!("kill {name}: {error}"),
            };
            // Nothing hears it after the end.
            let _ = says.send(said);
        };
        match Builder::new().name("tidy-process-kill".to_owned()).spawn(kills) {
            Ok(killer) => self.killers.push(killer),
            Err(error) => drop(self.says.send(format!("kill: {error}"))),
        }
    }

    /// Kills what has not stopped in time; returns what there is to say.
    pub(crate) fn go_on(&mut self) -> Option<String> {
        let now = Instant::now();
        let (over, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.stopping)
            .into_iter()
            .partition(|(_, until)| until.is_some_and(|until| until <= now));
        self.stopping = waiting;
        self.stopping.retain(|(known, _)| {
            let left = known.held.is_populated();
            if !left {
                let _ = self.says.send(format!("stopped {}", known.name));
            }
            left
        });
        for (known, _) in over.into_iter().filter(|(known, _)| known.held.is_populated()) {
            self.kill(known);
        }
        self.killers.retain(|killer| !killer.is_finished());
        self.said.try_iter().last().map(|said| quoted(&said))
    }

    /// Whether anything is under way that is to be looked at soon.
    pub(crate) fn is_busy(&self) -> bool {
        !self.stopping.is_empty() || !self.killers.is_empty()
    }

    /// How many trees that this process froze stand still now.
    pub(crate) fn frozen(&mut self) -> usize {
        self.frozen.retain(|known| known.held.is_populated() && known.held.is_frozen());
        self.frozen.len()
    }

    /// Leaves frozen what is frozen; returns the names.
    pub(crate) fn leave(&mut self) -> Vec<String> {
        self.frozen.drain(..).map(|known| known.name).collect()
    }

    /// Thaws what this process froze, and ends what it has begun to stop: within the grace, or at
    /// once when `hurries` says so.
    pub(crate) fn end(&mut self, mut hurries: impl FnMut() -> bool) {
        self.frozen.drain(..).for_each(|known| drop(known.held.set_frozen(false)));
        while self.is_busy() {
            if hurries() {
                let now = Instant::now();
                self.stopping.iter_mut().for_each(|(_, until)| *until = Some(now));
            }
            self.go_on();
            // No one event tells of the end of several trees; these are few and soon over.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Acts {
    fn drop(&mut self) {
        self.end(|| false);
    }
}
