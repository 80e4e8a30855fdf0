//! The seccomp filter: which system calls are refused, by name (`rules.rs`), with their numbers
//! (`calls.rs`), as a program for the kernel (`program.rs`).

mod calls;
mod program;
mod rules;
#[cfg(test)]
mod tests;
pub(crate) mod watch;

use std::collections::BTreeMap;

use crate::error::{Error, Result, Step};
use crate::sandbox::filter::calls::Calls;
use crate::sandbox::filter::program::{Arch, Rule, Verdict};
use crate::sandbox::filter::rules::{Refused, refused};
use crate::sandbox::request::Request;

/// A machine whose system calls are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// The one that this program is for.
    pub(crate) fn own() -> Option<Self> {
        match () {
            () if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) => {
                Some(Self::X86_64)
            }
            () if cfg!(all(target_arch = "aarch64", target_endian = "little")) => {
                Some(Self::Aarch64)
            }
            () => None,
        }
    }

    fn arch(self) -> Arch {
        match self {
            // From there on the numbers of x32.
            Self::X86_64 => Arch { audit: 0xc000_003e, end: 0x4000_0000 },
            Self::Aarch64 => Arch { audit: 0xc000_00b7, end: 0x4000_0000 },
        }
    }
}

/// The calls that are refused, and when: for the plan.
pub(crate) fn list(machine: Machine, request: &Request) -> Result<Vec<String>> {
    let refused = rules(machine, &Calls::of(machine), request)?;
    Ok(refused.into_values().map(|refused| refused.to_string()).collect())
}

/// Makes the program of a request.
pub(crate) fn program(machine: Machine, request: &Request) -> Result<Vec<libc::sock_filter>> {
    let calls = Calls::of(machine);
    let known = calls.numbers().map(|number| (number, Rule::always(Verdict::Allow)));
    let mut all: BTreeMap<u32, Rule> = known.collect();
    for (number, refused) in rules(machine, &calls, request)? {
        all.insert(number, refused.rule);
    }
    for name in &request.allowed {
        all.insert(number(machine, &calls, name)?, Rule::always(Verdict::Allow));
    }
    if request.explain {
        watch::add(&calls, request.level, &mut all);
    }
    Ok(program::program(machine.arch(), &all, unknown()))
}

/// A call that came with a later kernel may do anything: to programs the kernel is an old one.
fn unknown() -> Verdict {
    rules::refuse(libc::ENOSYS)
}

/// The refused calls of this machine.
fn rules(machine: Machine, calls: &Calls, request: &Request) -> Result<BTreeMap<u32, Refused>> {
    let mut all = BTreeMap::new();
    for refused in refused() {
        if let Some(number) = calls.number(refused.name) {
            all.insert(number, refused);
        }
    }
    for name in &request.denied {
        let number = number(machine, calls, name)?;
        let name = calls.name(number).unwrap_or("unknown");
        all.insert(number, Refused::always(name, libc::EPERM));
    }
    for name in &request.allowed {
        all.remove(&number(machine, calls, name)?);
    }
    Ok(all)
}

fn number(machine: Machine, calls: &Calls, name: &str) -> Result<u32> {
    let unknown = || {
        let why = "there is no such system call on this machine";
        Error::invalid(Step::Prepare, format!("system call {name:?}"), why)
    };
    calls.number(name).filter(|&number| number < machine.arch().end).ok_or_else(unknown)
}
