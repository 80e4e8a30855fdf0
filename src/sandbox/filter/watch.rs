//! Which system calls wait until the supervisor has seen them, where denials are explained; and
//! what it answers.
//!
//! The filter hands over calls by which a path or an address may be denied, and those that it would
//! refuse with an errno of which a program cannot make sense. The former all go on. The latter are
//! answered with that errno, by the rule of the filter itself: it depends on the numbers that the
//! kernel shows, and on no memory that could change meanwhile.

use std::collections::BTreeMap;

use libc::{AT_EMPTY_PATH, ENOSYS, O_CREAT, O_RDWR, O_TRUNC, O_WRONLY};

use crate::confinement::{Level, Property};
use crate::error::Result;
use crate::sandbox::filter::calls::Calls;
use crate::sandbox::filter::program::{Check, Is, Rule, Verdict};
use crate::sandbox::filter::rules::{high, low, property};
use crate::sandbox::filter::{Machine, number, rules};
use crate::sandbox::request::Request;

/// Calls that are made before exec, once the filter is there: a process that waited in one would
/// never be seen. And exec itself, after which nothing is as it was seen.
const NEVER: [&str; 8] =
    ["execve", "execveat", "sendmsg", "write", "close", "exit", "exit_group", "rt_sigreturn"];

/// Calls that change what is at a path, at whichever argument.
const WRITES: &str = "creat mkdir mkdirat mknod mknodat unlink unlinkat rmdir rename renameat \
    renameat2 link linkat symlink symlinkat truncate";

/// The same, to attributes: nothing in a fence refuses those.
const CHANGES: &str = "chmod fchmodat fchmodat2 chown lchown fchownat utime utimes setxattr \
    lsetxattr removexattr lremovexattr";

/// Calls that look at a path.
const READS: &str = "stat lstat access faccessat faccessat2 readlink readlinkat chdir statfs \
    getxattr lgetxattr listxattr llistxattr inotify_add_watch";

/// Calls that are about a path, or with a flag at this argument about an open file.
const BY_PATH_OR_FILE: [(&str, u8); 6] = [
    ("newfstatat", 3),
    ("statx", 2),
    ("setxattrat", 2),
    ("removexattrat", 2),
    ("getxattrat", 2),
    ("listxattrat", 2),
];

const ADDRESSES: &str = "connect bind";

/// The lists of checks of one of which a call needs all to be handed over, by name.
fn watched(level: Level) -> Vec<(&'static str, Vec<Vec<Check>>)> {
    let always =
        |names: &'static str| names.split_ascii_whitespace().map(|name| (name, vec![Vec::new()]));
    let mut all: Vec<_> = always(WRITES).collect();
    match level {
        Level::Fence => {
            let writes = Is::Any((O_WRONLY | O_RDWR | O_CREAT | O_TRUNC).cast_unsigned());
            all.extend(
                [("open", 1), ("openat", 2)].map(|(name, at)| (name, vec![vec![low(at, writes)]])),
            );
        }
        Level::Sandbox => {
            all.extend(always("open openat"));
            all.extend([CHANGES, READS, ADDRESSES].into_iter().flat_map(always));
            let by_path = Is::Lacks(AT_EMPTY_PATH.cast_unsigned());
            all.extend(
                BY_PATH_OR_FILE.map(|(name, flags)| (name, vec![vec![low(flags, by_path)]])),
            );
            let is_given = Is::Other(0);
            all.extend([("sendto", 4), ("utimensat", 1), ("futimesat", 1)].map(
                |(name, pointer)| {
                    (name, vec![vec![low(pointer, is_given)], vec![high(pointer, is_given)]])
                },
            ));
        }
    }
    all
}

/// Whether a refusal is told of. One by `ENOSYS` is how programs find out what there is.
fn is_told(calls: &Calls, number: u32, rule: &Rule) -> bool {
    let refuses = matches!(rule.then, Verdict::Refuse(errno) if i32::from(errno) != ENOSYS);
    refuses && !calls.name(number).is_some_and(|name| NEVER.contains(&name))
}

/// Changes the rules of a filter to those of one that explains.
pub(super) fn add(calls: &Calls, level: Level, all: &mut BTreeMap<u32, Rule>) {
    for (number, rule) in all.iter_mut() {
        if is_told(calls, *number, rule) {
            rule.then = Verdict::Notify;
        }
    }
    for (name, lists) in watched(level) {
        let Some(rule) = calls.number(name).and_then(|number| all.get_mut(&number)) else {
            continue;
        };
        match rule.then {
            Verdict::Notify => rule.lists.extend(lists),
            Verdict::Allow => *rule = Rule { lists, then: Verdict::Notify },
            Verdict::Refuse(_) => {}
        }
    }
}

/// What the supervisor answers.
#[derive(Debug)]
pub(crate) struct Answers {
    calls: Calls,
    refused: BTreeMap<u32, Known>,
}

#[derive(Debug)]
struct Known {
    rule: Rule,
    refusal: Refusal,
}

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: i32,
    /// With which arguments; empty if with any.
    pub(crate) when: &'static str,
    /// What rests on it; none where the caller refuses it beside.
    pub(crate) property: Option<Property>,
}

impl Answers {
    pub(crate) fn new(machine: Machine, request: &Request) -> Result<Self> {
        let calls = Calls::of(machine);
        let mut refused = BTreeMap::new();
        let asked: Result<Vec<u32>> =
            request.denied.iter().map(|name| number(machine, &calls, name)).collect();
        let asked = asked?;
        for (number, each) in rules(machine, &calls, request)? {
            if let (true, Verdict::Refuse(errno)) =
                (is_told(&calls, number, &each.rule), each.rule.then)
            {
                let property = (!asked.contains(&number)).then(|| property(each.name));
                let refusal = Refusal { errno: errno.into(), when: each.when, property };
                refused.insert(number, Known { rule: each.rule, refusal });
            }
        }
        Ok(Self { calls, refused })
    }

    pub(crate) fn name(&self, number: u32) -> &'static str {
        self.calls.name(number).unwrap_or("a call")
    }

    /// Whether the call is refused; if not it goes on.
    pub(crate) fn refusal(&self, number: u32, arguments: [u64; 6]) -> Option<Refusal> {
        let known = self.refused.get(&number)?;
        (known.rule.verdict(arguments) != Verdict::Allow).then_some(known.refusal)
    }
}
