//! Works out whether a level denies what was seen, and what would allow it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::denied::{Action, Denials, Denied, cost};
use crate::explain::calls::{PathUse, Seen, What};
use crate::explain::needs::Needs;
use crate::explain::paths::{Deed, Finding, judged, near};
use crate::explain::walk::walk;
use crate::proc::quote::{LINE, quoted, shortened};
use crate::sandbox::scope::{Scope, Shown, Watch};
use crate::sandbox::view::Network;
use crate::sys::poll::lock;

/// Denials that are kept, as of leftovers; the rest is counted.
const KEPT: usize = 100;
/// Paths that are remembered, so that each is looked at once.
const REMEMBERED: usize = 50_000;

#[derive(Debug)]
pub(super) struct Judge {
    watch: Arc<Watch>,
    denied: Vec<Denied>,
    /// By what is missing: the place in the list, if it is there.
    places: HashMap<(Action, String), usize>,
    asked: HashSet<PathUse>,
    /// What it has made in directories of its own.
    made: HashSet<PathBuf>,
    needs: Needs,
}

/// Judges one call. The file system is asked without the lock: it may hang.
pub(super) fn hear(judge: &Mutex<Judge>, seen: Seen) {
    let watch = Arc::clone(&lock(judge).watch);
    let Seen { call, who, what } = seen;
    let finding = match what {
        What::Path(path) => {
            let Some(made) = lock(judge).is_news(&path) else { return };
            let Some(walked) = walk(&path.path, path.how.follows) else { return };
            let home = watch.home.as_deref();
            let deed = Deed { path: &path, walked: &walked, made: &made, home };
            let (needs, finding) = judged(&watch.scope, &deed);
            let mut judge = lock(judge);
            judge.learn(needs);
            if finding.is_none() && path.action == Action::Write {
                judge.note_made(path.path);
            }
            drop(judge);
            // A command that is learned reaches what it needs: the profile names it instead.
            finding.filter(|finding| !watch.learns || finding.remedy.is_none())
        }
        What::Program(path) => {
            if let (Shown::Absent | Shown::Private, true) =
                (watch.scope.shown(&path), path.exists())
            {
                lock(judge).needs.read.insert(near(&path, false, watch.home.as_deref()));
            }
            return;
        }
        What::Address(action, address) => {
            lock(judge).note_address(address);
            of_address(&watch.scope, action, address)
        }
        What::Refused(refusal) => {
            lock(judge).needs.calls.insert(call, refusal.property);
            Some(Finding {
                action: Action::Call,
                target: refusal.when.to_owned(),
                remedy: refusal.property.map(|_| format!("--allow-syscall {call}")),
                remark: Some(match refusal.property {
                    Some(property) => cost(property),
                    None => format!("--deny-syscall {call} refuses it"),
                }),
            })
        }
    };
    if let Some(finding) = finding {
        lock(judge).note(finding, call, who);
    }
}

impl Judge {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        let (denied, places, asked, made, needs) = Default::default();
        Self { watch, denied, places, asked, made, needs }
    }

    pub(super) fn denials(&self) -> Denials {
        Denials { all: self.denied.clone(), count: self.places.len() }
    }

    #[cfg(feature = "cli")]
    pub(super) fn needs(&self) -> Needs {
        self.needs.clone()
    }

    /// Whether this was not asked before; then what was made of it before.
    fn is_news(&mut self, path: &PathUse) -> Option<Vec<PathBuf>> {
        if self.asked.len() >= REMEMBERED {
            self.asked.clear();
        }
        if !self.asked.insert(path.clone()) {
            return None;
        }
        let above = path.path.ancestors().filter(|above| self.made.contains(*above));
        Some(above.map(Path::to_owned).collect())
    }

    /// Notes what it has made in a directory of its own, which the host may have too.
    fn note_made(&mut self, path: PathBuf) {
        if self.watch.scope.shown(&path) == Shown::Private && self.made.len() < REMEMBERED {
            self.made.insert(path);
        }
    }

    fn learn(&mut self, needs: Needs) {
        if self.watch.learns && self.needs.read.len() + self.needs.write.len() < REMEMBERED {
            self.needs.read.extend(needs.read);
            self.needs.write.extend(needs.write);
            self.needs.looked.extend(needs.looked);
        }
    }

    fn note_address(&mut self, address: SocketAddr) {
        match address.ip() {
            ip if ip.is_loopback() || ip.is_unspecified() => self.needs.loopback = true,
            _ if self.needs.addresses.len() < KEPT => {
                self.needs.addresses.insert(address.to_string());
            }
            _ => {}
        }
    }

    fn note(&mut self, finding: Finding, call: &'static str, (name, pid): (String, u32)) {
        let Finding { action, target, remedy, remark } = finding;
        let what = match (action, &remedy) {
            (Action::Call, _) => call.to_owned(),
            (_, Some(remedy)) => remedy.clone(),
            (_, None) => target.clone(),
        };
        let next = self.denied.len();
        let new_ones = self.places.len() < REMEMBERED;
        match self.places.get(&(action, what.clone())) {
            Some(&place) => self.denied.get_mut(place).into_iter().for_each(|it| it.times += 1),
            None if new_ones => {
                // Behind the last one they are counted alone.
                self.places.insert((action, what), if next < KEPT { next } else { usize::MAX });
                if next < KEPT {
                    let target = shortened(&quoted(&target), LINE);
                    let (name, times) = (quoted(&name), 1);
                    self.denied.push(Denied {
                        action,
                        target,
                        call,
                        name,
                        pid,
                        remedy,
                        remark,
                        times,
                    });
                }
            }
            None => {}
        }
    }
}

fn of_address(scope: &Scope, action: Action, address: SocketAddr) -> Option<Finding> {
    let Scope::View { network, .. } = scope else { return None };
    let is_own = address.ip().is_loopback() || address.ip().is_unspecified();
    let remedy = match (network, action) {
        (Network::Host, _) => return None,
        (Network::None, Action::Bind) if address.ip().is_unspecified() => return None,
        (Network::None, _) if is_own => "--net loopback".to_owned(),
        (_, _) if is_own => return None,
        (_, Action::Bind) => "--net host".to_owned(),
        _ if address.port() == 443 => "--allow-host NAME, or --net host".to_owned(),
        _ => format!("--allow-host NAME:{} for HTTPS, or --net host", address.port()),
    };
    Some(Finding { action, target: address.to_string(), remedy: Some(remedy), remark: None })
}
