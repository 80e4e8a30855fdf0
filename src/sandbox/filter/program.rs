//! Makes a BPF program of verdicts about system calls: a binary tree over intervals of their
//! numbers.
//!
//! What a spawn pays at its installation: the kernel runs a filter once for each number, and
//! compiles it to machine code, a third of a microsecond for each instruction. So the way to an
//! answer has to be short, and the whole as well: an answer is written once, wherever it is needed.
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
    let mut program = Backwards::default();
    let known = program.tree(&exceptions(rules, &Rule::always(unknown)));
    let kill = program.answer(libc::SECCOMP_RET_KILL_PROCESS);
    let called_off = program.ret(unknown);
    let foreign = program.branch(BPF_JEQ, NO_CALL, kill, called_off);
    program.branch(BPF_JGE, arch.end, known, foreign);
    let native = program.put(load(NUMBER));
    program.branch(BPF_JEQ, arch.audit, kill, native);
    program.put(load(ARCH));
    program.reversed.into_iter().rev().collect()
}

/// Numbers that are not simply allowed.
struct Exception<'a> {
    start: u32,
    /// The number behind the last one; none where it goes on to the greatest.
    end: Option<u32>,
    rule: &'a Rule,
}

/// The runs of numbers with one rule, but for those that are allowed.
fn exceptions<'a>(rules: &'a BTreeMap<u32, Rule>, unknown: &'a Rule) -> Vec<Exception<'a>> {
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
    let ends = all.iter().skip(1).map(|&(start, _)| Some(start)).chain([None]);
    let runs = all.iter().zip(ends).map(|(&(start, rule), end)| Exception { start, end, rule });
    runs.filter(|run| run.rule.then != Verdict::Allow).collect()
}

/// A program that is written from its end: jumps lead forward only, so that what one leads to is
/// there, and is written once. The place of an instruction is how many there are from it to the
/// end.
#[derive(Default)]
struct Backwards {
    reversed: Vec<Instruction>,
    answers: Vec<(u32, usize)>,
    leaves: Vec<(Rule, usize)>,
}

impl Backwards {
    /// How many exceptions are compared one after the other. A tree down to each one would be no
    /// faster and have half as many comparisons again.
    const CHAIN: usize = 4;

    /// Puts an instruction before all others.
    fn put(&mut self, instruction: Instruction) -> usize {
        self.reversed.push(instruction);
        self.reversed.len()
    }

    /// How many instructions a jump to this place leaves out, if it is put now.
    fn over(&self, place: usize) -> usize {
        self.reversed.len().saturating_sub(place)
    }

    /// This place, or one nearby that jumps there: a comparison's jump reaches no further than 255,
    /// one of which its other branch may need.
    fn near(&mut self, place: usize) -> usize {
        match u32::try_from(self.over(place)) {
            Ok(over) if over >= 255 => self.put(instruction(BPF_JMP | BPF_JA, 0, 0, over)),
            _ => place,
        }
    }

    fn branch(&mut self, comparison: u32, value: u32, no: usize, yes: usize) -> usize {
        let (yes, no) = (self.near(yes), self.near(no));
        let over = |place| u8::try_from(self.over(place)).unwrap_or(u8::MAX);
        let code = BPF_JMP | comparison | BPF_K;
        self.put(instruction(code, over(yes), over(no), value))
    }

    fn tree(&mut self, exceptions: &[Exception<'_>]) -> usize {
        if exceptions.len() <= Self::CHAIN {
            let allow = self.ret(Verdict::Allow);
            return exceptions.iter().rev().fold(allow, |other, each| self.test(each, other));
        }
        let (low, high) = exceptions.split_at(exceptions.len() / 2);
        let start = high.first().map_or(0, |first| first.start);
        let high = self.tree(high);
        let low = self.tree(low);
        self.branch(BPF_JGE, start, low, high)
    }

    /// Whether the number is of this exception.
    fn test(&mut self, exception: &Exception<'_>, other: usize) -> usize {
        let (start, leaf) = (exception.start, self.leaf(exception.rule));
        match exception.end {
            Some(end) if end - start == 1 => self.branch(BPF_JEQ, start, other, leaf),
            Some(end) => {
                let above_start = self.branch(BPF_JGE, start, other, leaf);
                self.branch(BPF_JGE, end, above_start, other)
            }
            None => self.branch(BPF_JGE, start, other, leaf),
        }
    }

    /// Answers by the arguments.
    fn leaf(&mut self, rule: &Rule) -> usize {
        if let Some((_, place)) = self.leaves.iter().find(|(known, _)| known == rule) {
            return *place;
        }
        let (allow, then) = (self.ret(Verdict::Allow), self.ret(rule.then));
        let lists = rule.lists.iter().rev();
        let place = lists.fold(allow, |other, list| self.holds(list, then, other));
        self.leaves.push((rule.clone(), place));
        place
    }

    /// `then` if every check holds, else `other`.
    fn holds(&mut self, list: &[Check], then: usize, other: usize) -> usize {
        list.iter().rev().fold(then, |then, check| {
            match check.is {
                Is::Equal(value) => self.branch(BPF_JEQ, value, other, then),
                Is::Other(value) => self.branch(BPF_JEQ, value, then, other),
                Is::Any(bits) => self.branch(BPF_JSET, bits, other, then),
                Is::Lacks(bits) => self.branch(BPF_JSET, bits, then, other),
            };
            self.put(load(place(*check)))
        })
    }

    fn ret(&mut self, verdict: Verdict) -> usize {
        self.answer(match verdict {
            Verdict::Allow => libc::SECCOMP_RET_ALLOW,
            Verdict::Refuse(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Verdict::Notify => libc::SECCOMP_RET_USER_NOTIF,
        })
    }

    fn answer(&mut self, value: u32) -> usize {
        if let Some((_, place)) = self.answers.iter().find(|(known, _)| *known == value) {
            return *place;
        }
        let place = self.put(instruction(BPF_RET | BPF_K, 0, 0, value));
        self.answers.push((value, place));
        place
    }
}

/// Both machines are little-endian.
fn place(check: Check) -> u32 {
    let half = match check.half {
        Half::Low => 0,
        Half::High => 4,
    };
    ARGUMENTS + 8 * u32::from(check.argument) + half
}

fn load(place: u32) -> Instruction {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, place)
}

#[expect(clippy::cast_possible_truncation, reason = "an operation code has 16 bits")]
fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code: code as u16, jt, jf, k }
}
