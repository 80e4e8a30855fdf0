//! What is known of the trees, and what of it is shown: order, filter, which are unfolded, and
//! where the cursor is.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tidy_process::ProcessInfo;
use tidy_process::cli_support::{CgroupId, SeenTree, quoted};

/// What trees are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Run root, and number in it
    Start,
    /// Name
    Name,
    /// Time since the first process, the oldest first
    Age,
    /// Number of processes, the most first
    Processes,
    /// CPU now, the most first
    Cpu,
    /// Memory, the most first
    Memory,
}

impl Order {
    const ALL: [Self; 6] =
        [Self::Start, Self::Name, Self::Age, Self::Processes, Self::Cpu, Self::Memory];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Name => "name",
            Self::Age => "age",
            Self::Processes => "processes",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }

    /// The next one; the one before with `false`.
    fn next(self, forth: bool) -> Self {
        let here = Self::ALL.iter().position(|order| *order == self).unwrap_or(0);
        let step = if forth { 1 } else { Self::ALL.len() - 1 };
        Self::ALL.get((here + step) % Self::ALL.len()).copied().unwrap_or(self)
    }
}

/// What a tree does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Frozen,
    Stopping,
    /// Its owner is gone; the next sweep removes it.
    Stale,
    /// It has no process.
    Empty,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Stopping => "stopping",
            Self::Stale => "stale",
            Self::Empty => "empty",
        }
    }
}

/// One tree, as far as it was looked at.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) seen: SeenTree,
    /// Quoted.
    pub(crate) name: String,
    pub(crate) populated: bool,
    pub(crate) frozen: bool,
    pub(crate) stopping: bool,
    /// CPU time used at a moment, for the next difference.
    pub(crate) used: Option<(Instant, Duration)>,
    /// Of one CPU.
    pub(crate) cpu: Option<f64>,
    pub(crate) born: Option<Instant>,
    pub(crate) pids: Option<Vec<i32>>,
    pub(crate) memory: Option<u64>,
    pub(crate) ports: BTreeSet<u16>,
    pub(crate) unfolded: bool,
    /// Where it is unfolded.
    pub(crate) processes: Vec<ProcessInfo>,
}

impl Tree {
    pub(crate) fn new(seen: SeenTree) -> Self {
        Self {
            name: quoted(&seen.name),
            seen,
            populated: false,
            frozen: false,
            stopping: false,
            used: None,
            cpu: None,
            born: None,
            pids: None,
            memory: None,
            ports: BTreeSet::new(),
            unfolded: false,
            processes: Vec::new(),
        }
    }

    /// A tree that stands still is shown as that above all: it is not to be forgotten.
    pub(crate) fn state(&self) -> State {
        match self {
            Self { frozen: true, .. } => State::Frozen,
            Self { seen: SeenTree { owner_lives: false, .. }, .. } => State::Stale,
            Self { populated: false, .. } => State::Empty,
            Self { stopping: true, .. } => State::Stopping,
            _ => State::Running,
        }
    }

    pub(crate) fn count(&self) -> Option<usize> {
        self.pids.as_ref().map(Vec::len)
    }

    pub(crate) fn age(&self) -> Option<Duration> {
        self.born.map(|born| born.elapsed())
    }

    /// Takes the difference to what was used when it was last looked at.
    pub(crate) fn note_used(&mut self, now: Instant, used: Option<Duration>) {
        let Some(used) = used else { return };
        if let Some((then, before)) = self.used {
            let time = now.saturating_duration_since(then);
            // Shorter ones are all rounding.
            if time < Duration::from_millis(50) {
                return;
            }
            self.cpu = Some(used.saturating_sub(before).as_secs_f64() / time.as_secs_f64());
        }
        self.used = Some((now, used));
    }

    fn matches(&self, filter: &str) -> bool {
        let mut text = format!("{}\n{}\n{}", self.name, self.seen.owner, self.state().word());
        for port in &self.ports {
            let _ = write!(text, "\n{port}");
        }
        text.to_lowercase().contains(&filter.to_lowercase())
    }
}

/// One line below the heading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Tree(CgroupId),
    /// The number of a process of an unfolded tree.
    Process(CgroupId, usize),
    /// Processes that are not described.
    More(CgroupId, usize),
}

impl Line {
    pub(crate) fn tree(self) -> CgroupId {
        match self {
            Self::Tree(id) | Self::Process(id, _) | Self::More(id, _) => id,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) trees: BTreeMap<CgroupId, Tree>,
    /// In the order of the last list.
    pub(crate) listed: Vec<CgroupId>,
    /// There are more directories than were looked at.
    pub(crate) cut: bool,
    pub(crate) order: Order,
    pub(crate) reversed: bool,
    pub(crate) filter: String,
    /// What is shown, all of it.
    pub(crate) lines: Vec<Line>,
    /// The line that the keys are about, and the first one on the screen.
    pub(crate) cursor: usize,
    pub(crate) top: usize,
    /// Lines on the screen.
    pub(crate) height: usize,
}

impl Model {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            trees: BTreeMap::new(),
            listed: Vec::new(),
            cut: false,
            order,
            reversed: false,
            filter: String::new(),
            lines: Vec::new(),
            cursor: 0,
            top: 0,
            height: 0,
        }
    }

    /// The trees that the filter lets through, in order.
    pub(crate) fn order_all(&self) -> Vec<CgroupId> {
        let shown = |id: &&CgroupId| {
            self.filter.is_empty() || self.trees.get(id).is_some_and(|it| it.matches(&self.filter))
        };
        let mut ids: Vec<CgroupId> = self.listed.iter().filter(shown).copied().collect();
        ids.sort_by(|one, other| match (self.trees.get(one), self.trees.get(other)) {
            (Some(one), Some(other)) => compare(self.order, one, other),
            _ => Ordering::Equal,
        });
        if self.reversed {
            ids.reverse();
        }
        ids
    }

    /// Lays the lines out anew; the cursor stays on what it was on.
    pub(crate) fn lay_out(&mut self) {
        let on = self.lines.get(self.cursor).copied();
        let mut lines = Vec::new();
        for id in self.order_all() {
            lines.push(Line::Tree(id));
            let Some(tree) = self.trees.get(&id).filter(|tree| tree.unfolded) else { continue };
            let named = tree.processes.len();
            lines.extend((0..named).map(|number| Line::Process(id, number)));
            let more = tree.count().unwrap_or(0).saturating_sub(named);
            lines.extend((more > 0).then_some(Line::More(id, more)));
        }
        self.lines = lines;
        let place = |line: Line| self.lines.iter().position(|other| *other == line);
        let found = on.and_then(|line| place(line).or_else(|| place(Line::Tree(line.tree()))));
        self.go_to(found.unwrap_or(self.cursor));
    }

    /// Moves the cursor, and the screen with it.
    pub(crate) fn go_to(&mut self, line: usize) {
        self.cursor = line.min(self.lines.len().saturating_sub(1));
        let height = self.height.max(1);
        let least = (self.cursor + 1).saturating_sub(height);
        let most = self.lines.len().saturating_sub(height);
        self.top = self.top.clamp(least, self.cursor.max(least)).min(most.max(least));
    }

    pub(crate) fn chosen(&self) -> Option<&Tree> {
        self.trees.get(&self.lines.get(self.cursor)?.tree())
    }

    /// The trees on the screen.
    pub(crate) fn on_screen(&self) -> Vec<CgroupId> {
        let lines = self.lines.iter().skip(self.top).take(self.height.max(1));
        let mut ids: Vec<CgroupId> = lines.map(|line| line.tree()).collect();
        ids.dedup();
        ids
    }

    /// Unfolds the chosen tree, or folds it.
    pub(crate) fn fold(&mut self) {
        let Some(id) = self.lines.get(self.cursor).map(|line| line.tree()) else { return };
        if let Some(tree) = self.trees.get_mut(&id) {
            tree.unfolded = !tree.unfolded;
            if !tree.unfolded {
                tree.processes.clear();
            }
        }
        self.lay_out();
    }

    pub(crate) fn order_by_next(&mut self, forth: bool) {
        self.order = self.order.next(forth);
        self.lay_out();
    }
}

/// Where most matters the most comes first; equal ones stay as they were listed.
fn compare(order: Order, one: &Tree, other: &Tree) -> Ordering {
    match order {
        Order::Start => Ordering::Equal,
        Order::Name => one.name.cmp(&other.name),
        Order::Age => other.born.is_some().cmp(&one.born.is_some()).then(one.born.cmp(&other.born)),
        Order::Processes => other.count().cmp(&one.count()),
        Order::Cpu => other.cpu.unwrap_or(-1.0).total_cmp(&one.cpu.unwrap_or(-1.0)),
        Order::Memory => other.memory.cmp(&one.memory),
    }
}
