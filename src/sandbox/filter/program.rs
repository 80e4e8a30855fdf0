//! Makes a BPF program of verdicts about system calls: a binary tree over intervals of their
//! numbers.
//!
//! At its installation the kernel runs a filter once for each number, so its length on the way to
//! an answer is what a spawn pays: a chain of comparisons over 60 calls took 240 us, the tree 45.
//! Pure functions; see seccomp(2) for what the program sees.

use std::collections::BTreeMap;

use libc::{BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W};

/// An instruction, as the kernel takes it.
pub(super) type Instruction = libc::sock_filter;

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// It is not made, and answers with this errno.
    Refuse(u16),
    /// It waits until the supervisor has seen it.
    Notify,
}

/// A test of 32 bits of an argument. Where the kernel takes an `int`, that is its low half,
/// whatever the high half holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Check {
    /// From 0 on.
    pub(super) argument: u8,
    pub(super) half: Half,
    pub(super) is: Is,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Low,
    High,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Equal(u32),
    Other(u32),
    /// One of these bits is set.
    Any(u32),
    /// None of these bits is set.
    Lacks(u32),
}

impl Is {
    pub(super) fn holds(self, word: u32) -> bool {
        match self {
            Self::Equal(value) => word == value,
            Self::Other(value) => word != value,
            Self::Any(bits) => word & bits != 0,
            Self::Lacks(bits) => word & bits == 0,
        }
    }
}

/// The verdict about one system call: `then` if all checks of one of the lists hold, else allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) lists: Vec<Vec<Check>>,
    pub(super) then: Verdict,
}

impl Rule {
    /// Whatever the arguments.
    pub(super) fn always(then: Verdict) -> Self {
        Self { lists: vec![Vec::new()], then }
    }

    /// The verdict about a call with these arguments, as the program has it.
    pub(super) fn verdict(&self, arguments: [u64; 6]) -> Verdict {
        let holds = |check: &Check| {
            let argument = arguments.get(usize::from(check.argument)).copied().unwrap_or(0);
            let shift = if check.half == Half::High { 32 } else { 0 };
            #[expect(clippy::cast_possible_truncation, reason = "one half of it")]
            check.is.holds((argument >> shift) as u32)
        };
        match self.lists.iter().any(|list| list.iter().all(holds)) {
            true => self.then,
            false => Verdict::Allow,
        }
    }
}

/// What the program knows of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arch {
    /// Calls by any other convention (int 0x80) end the process.
    pub(super) audit: u32,
    /// So do numbers from here on (x32).
    pub(super) end: u32,
}

const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The number of a call that a tracer has called off.
const NO_CALL: u32 = u32::MAX;

/// Makes the program. Each number without a rule gets the verdict `unknown`.
pub(super) fn program(
    arch: Arch,
    rules: &BTreeMap<u32, Rule>,
    unknown: Verdict,
) -> Vec<Instruction> {
    let kill = [answer(libc::SECCOMP_RET_KILL_PROCESS)];
    let mut foreign = Vec::new();
    branch(&mut foreign, BPF_JEQ, NO_CALL, &kill, &[ret(unknown)]);
    let mut native = vec![load(NUMBER)];
    let known = tree(&intervals(rules, &Rule::always(unknown)));
    branch(&mut native, BPF_JGE, arch.end, &known, &foreign);
    let mut program = vec![load(ARCH)];
    branch(&mut program, BPF_JEQ, arch.audit, &kill, &native);
    program
}

/// The first number of each run of numbers with one rule.
fn intervals<'a>(rules: &'a BTreeMap<u32, Rule>, unknown: &'a Rule) -> Vec<(u32, &'a Rule)> {
    let mut all: Vec<(u32, &Rule)> = Vec::new();
    let mut next = 0;
    for (&number, rule) in rules {
        if number > next {
            all.push((next, unknown));
        }
        all.push((number, rule));
        next = number.saturating_add(1);
    }
    all.push((next, unknown));
    all.dedup_by(|later, earlier| later.1 == earlier.1);
    all
}

fn tree(intervals: &[(u32, &Rule)]) -> Vec<Instruction> {
    let (low, high) = intervals.split_at(intervals.len() / 2);
    match (low, high) {
        ([], []) => Vec::new(),
        ([], [(_, rule), ..]) => leaf(rule),
        (_, [(start, _), ..]) => {
            let mut program = Vec::new();
            branch(&mut program, BPF_JGE, *start, &tree(low), &tree(high));
            program
        }
        (_, []) => tree(low),
    }
}

/// Answers by the arguments; leaves nothing to what comes behind.
fn leaf(rule: &Rule) -> Vec<Instruction> {
    let mut program = vec![ret(Verdict::Allow)];
    for list in rule.lists.iter().rev() {
        program = holds(list, ret(rule.then), program);
    }
    program
}

/// `then` if every check holds, else `other`.
fn holds(list: &[Check], then: Instruction, other: Vec<Instruction>) -> Vec<Instruction> {
    let Some((check, rest)) = list.split_first() else { return vec![then] };
    let inner = holds(rest, then, other.clone());
    let mut program = vec![load(place(*check))];
    match check.is {
        Is::Equal(value) => branch(&mut program, BPF_JEQ, value, &other, &inner),
        Is::Other(value) => branch(&mut program, BPF_JEQ, value, &inner, &other),
        Is::Any(bits) => branch(&mut program, BPF_JSET, bits, &other, &inner),
        Is::Lacks(bits) => branch(&mut program, BPF_JSET, bits, &inner, &other),
    }
    program
}

/// Both machines are little-endian.
fn place(check: Check) -> u32 {
    let half = match check.half {
        Half::Low => 0,
        Half::High => 4,
    };
    ARGUMENTS + 8 * u32::from(check.argument) + half
}

/// Appends both branches of a comparison, each of which ends in an answer; the first is jumped over
/// if it holds.
fn branch(
    program: &mut Vec<Instruction>,
    comparison: u32,
    value: u32,
    no: &[Instruction],
    yes: &[Instruction],
) {
    match u8::try_from(no.len()) {
        Ok(over) => program.push(instruction(BPF_JMP | comparison | BPF_K, over, 0, value)),
        Err(_) => {
            // The jump of a comparison reaches no further than 255.
            program.push(instruction(BPF_JMP | comparison | BPF_K, 0, 1, value));
            let over = u32::try_from(no.len()).unwrap_or(u32::MAX);
            program.push(instruction(BPF_JMP | BPF_JA, 0, 0, over));
        }
    }
    program.extend_from_slice(no);
    program.extend_from_slice(yes);
}

fn load(place: u32) -> Instruction {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, place)
}

fn ret(verdict: Verdict) -> Instruction {
    answer(match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Refuse(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        Verdict::Notify => libc::SECCOMP_RET_USER_NOTIF,
    })
}

fn answer(value: u32) -> Instruction {
    instruction(BPF_RET | BPF_K, 0, 0, value)
}

#[expect(clippy::cast_possible_truncation, reason = "an operation code has 16 bits")]
fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code: code as u16, jt, jf, k }
}
