//! Looks at trees, at a bounded cost: each kind of look has a share of a CPU, and the next one of
//! its kind waits as long as the last one has cost too much.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tidy_process::cli_support::{CgroupId, Lookout};

use crate::top::model::{Model, Order, Tree};

/// The share of a CPU that the list of all trees may cost, what is on the screen, and ports.
const OF_SCAN: f64 = 0.004;
const OF_DETAIL: f64 = 0.003;
const OF_PORTS: f64 = 0.0015;

/// The shortest time between two looks of a kind.
const LEAST: Duration = Duration::from_secs(1);
const LEAST_FOR_PORTS: Duration = Duration::from_secs(3);

/// When a look is due.
#[derive(Debug)]
pub(crate) struct Pace {
    share: f64,
    least: Duration,
    pub(crate) due: Instant,
}

impl Pace {
    fn new(share: f64, least: Duration) -> Self {
        Self { share, least, due: Instant::now() }
    }

    pub(crate) fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// A look has cost this.
    pub(crate) fn spent(&mut self, cost: Duration) {
        let pause = cost.div_f64(self.share).max(self.least);
        self.due = Instant::now() + pause;
    }
}

/// CPU time that this process has used, its threads included.
pub(crate) fn own_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

pub(crate) struct Sampler {
    pub(crate) lookout: Lookout,
    /// Whose trees are shown; all with none.
    user: Option<u32>,
    pub(crate) scan: Pace,
    pub(crate) detail: Pace,
    pub(crate) ports: Pace,
}

impl Sampler {
    pub(crate) fn new(lookout: Lookout, user: Option<u32>) -> Self {
        let scan = Pace::new(OF_SCAN, LEAST);
        let detail = Pace::new(OF_DETAIL, LEAST);
        let ports = Pace::new(OF_PORTS, LEAST_FOR_PORTS);
        Self { lookout, user, scan, detail, ports }
    }

    pub(crate) fn has_all_users(&self) -> bool {
        self.user.is_none()
    }

    /// When the next look of any kind is due.
    pub(crate) fn due(&self) -> Instant {
        self.scan.due.min(self.detail.due).min(self.ports.due)
    }

    /// Lists all trees, and reads of each what the list has to be ordered by.
    pub(crate) fn scan(&mut self, model: &mut Model) {
        let before = own_cpu();
        let (seen, cut) = self.lookout.trees();
        let seen = seen.into_iter().filter(|tree| self.user.is_none_or(|user| user == tree.uid));
        let mut known = std::mem::take(&mut model.trees);
        model.listed.clear();
        for one in seen {
            let mut tree = match known.remove(&one.id) {
                Some(tree) => Tree { seen: one, ..tree },
                None => Tree::new(one),
            };
            self.pulse(&mut tree, model.order);
            model.listed.push(tree.seen.id);
            model.trees.insert(tree.seen.id, tree);
        }
        model.cut = cut;
        model.lay_out();
        self.scan.spent(own_cpu().saturating_sub(before));
    }

    fn pulse(&self, tree: &mut Tree, order: Order) {
        let Some(pulse) = self.lookout.pulse(&tree.seen, order == Order::Cpu) else { return };
        (tree.populated, tree.frozen) = (pulse.populated, pulse.frozen);
        tree.note_used(Instant::now(), pulse.cpu);
        match order {
            Order::Memory => tree.memory = self.lookout.memory(&tree.seen),
            Order::Processes => tree.pids = Some(self.lookout.pids(&tree.seen)),
            Order::Age if tree.born.is_none() => {
                self.date(tree, &self.lookout.pids(&tree.seen));
            }
            _ => {}
        }
    }

    /// Its age is that of the oldest process that it had when it was first looked at.
    fn date(&self, tree: &mut Tree, pids: &[i32]) {
        let age = self.lookout.age(pids);
        tree.born = age.and_then(|age| Instant::now().checked_sub(age));
    }

    /// Reads all of some trees but their ports.
    pub(crate) fn detail(&mut self, model: &mut Model, of: &[CgroupId]) {
        for id in of {
            let Some(tree) = model.trees.get_mut(id) else { continue };
            if let Some(pulse) = self.lookout.pulse(&tree.seen, true) {
                (tree.populated, tree.frozen) = (pulse.populated, pulse.frozen);
                tree.note_used(Instant::now(), pulse.cpu);
            } else {
                tree.populated = false;
            }
            tree.stopping = self.lookout.is_stopping(&tree.seen);
            tree.memory = self.lookout.memory(&tree.seen);
            let pids = self.lookout.pids(&tree.seen);
            if tree.born.is_none() {
                self.date(tree, &pids);
            }
            if tree.unfolded {
                tree.processes = self.lookout.describe(&pids).0;
            }
            tree.pids = Some(pids);
        }
        model.lay_out();
    }

    /// Finds the ports of some trees whose processes are known.
    pub(crate) fn ports(&mut self, model: &mut Model, of: &[CgroupId]) {
        let before = own_cpu();
        let pids = |id: &CgroupId| model.trees.get(id).and_then(|tree| tree.pids.clone());
        let groups: Vec<Vec<i32>> = of.iter().map(|id| pids(id).unwrap_or_default()).collect();
        let groups: Vec<&[i32]> = groups.iter().map(Vec::as_slice).collect();
        for (id, ports) in of.iter().zip(self.lookout.ports(&groups)) {
            if let Some(tree) = model.trees.get_mut(id) {
                tree.ports = ports;
            }
        }
        self.ports.spent(own_cpu().saturating_sub(before));
    }
}
