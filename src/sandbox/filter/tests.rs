//! The filter against the one that the crate `seccompiler` makes of a list of its own: each number
//! with each argument that may count, on both machines, by an interpreter of BPF.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use libc::{EAFNOSUPPORT, ENOSYS, EPERM};
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::*;
use crate::confinement::Level;

const BOTH: [Machine; 2] = [Machine::X86_64, Machine::Aarch64];

const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn refusal(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

/// What the kernel shows a filter.
#[derive(Debug, Clone, Copy)]
struct Call {
    arch: u32,
    number: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(self, place: u32) -> u32 {
        let mut data = [0; 64];
        data[..4].copy_from_slice(&self.number.to_le_bytes());
        data[4..8].copy_from_slice(&self.arch.to_le_bytes());
        for (place, argument) in self.arguments.into_iter().enumerate() {
            data[16 + 8 * place..24 + 8 * place].copy_from_slice(&argument.to_le_bytes());
        }
        let place = place as usize;
        u32::from_le_bytes(data[place..place + 4].try_into().unwrap_or_default())
    }
}

/// Runs the program as bpf(2) does; panics at what a filter may not have.
fn answer(program: &[(u16, u8, u8, u32)], call: Call) -> u32 {
    let (mut at, mut a) = (0, 0);
    loop {
        let (code, jt, jf, k) = program[at];
        at += 1;
        let yes = match u32::from(code) {
            0x20 => {
                a = call.word(k);
                continue;
            }
            0x06 => return k,
            0x05 => {
                at += k as usize;
                continue;
            }
            0x15 => a == k,
            0x25 => a > k,
            0x35 => a >= k,
            0x45 => a & k != 0,
            0x54 => {
                a &= k;
                continue;
            }
            other => unreachable!("operation {other:#x} at {at}"),
        };
        at += usize::from(if yes { jt } else { jf });
    }
}

fn ours(machine: Machine, change: impl FnOnce(&mut Request)) -> Vec<(u16, u8, u8, u32)> {
    let mut request = Request::new(Level::Fence);
    change(&mut request);
    let made = program(machine, &request).unwrap_or_default();
    made.iter().map(|each| (each.code, each.jt, each.jf, each.k)).collect()
}

/// Names of `sandbox-facts`: refused whatever the arguments.
const REFUSED: &str = "ptrace modify_ldt pivot_root chroot acct settimeofday clock_settime mount \
    umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module \
    finit_module delete_module get_kernel_syms query_module quotactl quotactl_fd nfsservctl \
    lookup_dcookie kexec_load kexec_file_load add_key request_key keyctl migrate_pages move_pages \
    setns perf_event_open fanotify_init name_to_handle_at open_by_handle_at process_vm_readv \
    process_vm_writev process_madvise process_mrelease kcmp bpf userfaultfd io_uring_setup \
    io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick \
    mount_setattr open_tree_attr pidfd_getfd uselib ustat sysfs vhangup _sysctl";

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> SeccompCondition {
    SeccompCondition::new(argument, Dword, op, value).expect("a condition")
}

fn rule(conditions: Vec<SeccompCondition>) -> SeccompRule {
    SeccompRule::new(conditions).expect("a rule")
}

/// One rule for each bit, with the other conditions.
fn any(argument: u8, bits: u64, with: &[SeccompCondition]) -> Vec<SeccompRule> {
    let each = (0..32).map(|bit| 1 << bit).filter(|bit| bits & bit != 0);
    let each = each.map(|bit| {
        let mut all = with.to_vec();
        all.push(condition(argument, MaskedEq(bit), bit));
        rule(all)
    });
    each.collect()
}

/// The rules for EPERM with conditions.
fn conditional() -> Vec<(&'static str, Vec<SeccompRule>)> {
    let other = || vec![rule(vec![condition(0, Ne, 0)])];
    let modes = |argument| any(argument, 0o6000, &[]);
    let opens = |flags: u8, mode: u8| {
        let bits = [0o100, 0o20_000_000];
        let each = bits.map(|bit| any(mode, 0o6000, &[condition(flags, MaskedEq(bit), bit)]));
        each.concat()
    };
    let who =
        |which: u64| vec![rule(vec![condition(0, Ne, which)]), rule(vec![condition(1, Ne, 0)])];
    let wide = SeccompCondition::new(2, seccompiler::SeccompCmpArgLen::Qword, Ne, 0);
    let typed = [0x5412, 0x541c].map(|request| rule(vec![condition(1, Eq, request)]));
    vec![
        ("clone", any(0, 0x7e02_8000, &[])),
        ("unshare", any(0, 0x7e02_0080, &[])),
        ("sched_setparam", other()),
        ("sched_setscheduler", other()),
        ("sched_setattr", other()),
        ("sched_setaffinity", other()),
        ("prlimit64", vec![rule(vec![condition(0, Ne, 0), wide.expect("a condition")])]),
        ("setpriority", who(0)),
        ("ioprio_set", who(1)),
        ("ioctl", typed.into()),
        ("chmod", modes(1)),
        ("fchmod", modes(1)),
        ("fchmodat", modes(2)),
        ("fchmodat2", modes(2)),
        ("creat", modes(1)),
        ("mknod", modes(1)),
        ("mknodat", modes(2)),
        ("open", opens(1, 2)),
        ("openat", opens(2, 3)),
    ]
}

fn oracle(machine: Machine) -> Vec<Vec<(u16, u8, u8, u32)>> {
    let arch = match machine {
        Machine::X86_64 => TargetArch::x86_64,
        Machine::Aarch64 => TargetArch::aarch64,
    };
    let calls = Calls::of(machine);
    let number = |name: &str| calls.number(name).map(i64::from);
    let always = |names: &str| -> Rules {
        names.split_whitespace().filter_map(number).map(|number| (number, vec![])).collect()
    };
    let mut refused = always(REFUSED);
    refused
        .extend(conditional().into_iter().filter_map(|(name, rules)| Some((number(name)?, rules))));
    let mut absent = always("clone3 openat2");
    let known: Vec<u32> = calls.numbers().collect();
    absent.extend(LOOKED_AT.filter(|n| !known.contains(n)).map(|n| (i64::from(n), vec![])));
    let families = [1, 2, 10, 16].map(|family| condition(0, Ne, family));
    let families = || vec![rule(families.to_vec())];
    let sockets = ["socket", "socketpair"].map(|name| (number(name).unwrap_or(-1), families()));
    let each = [(refused, EPERM), (absent, ENOSYS), (sockets.into_iter().collect(), EAFNOSUPPORT)];
    let made = each.map(|(rules, errno)| {
        let refuse = SeccompAction::Errno(errno.cast_unsigned());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch);
        let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a program");
        program.iter().map(|each| (each.code, each.jt, each.jf, each.k)).collect()
    });
    made.into()
}

const LOOKED_AT: std::ops::Range<u32> = 0..520;

/// What may count in an argument.
const VALUES: [u64; 15] = [
    0,
    1,
    2,
    16,
    0o100,
    0o4755,
    0o2000 | 1 << 40,
    0o20_000_000,
    0x80,
    0x8011,
    0x5412,
    0x541c | 1 << 32,
    0x1000_0000,
    1 << 32,
    u64::MAX,
];

/// Three arguments of every combination, and four of fewer.
fn arguments() -> impl Iterator<Item = [u64; 6]> {
    let count = VALUES.len();
    (0..count.pow(3)).flat_map(move |number| {
        let value = |place: u32| VALUES[number / count.pow(place) % count];
        [0, 0o4755, u64::MAX].map(|last| [value(0), value(1), value(2), last, 0, 0])
    })
}

#[test]
fn the_filter_and_that_of_another_hand_agree_on_every_call() {
    let plain = [[0; 6], [u64::MAX; 6]];
    for machine in BOTH {
        let (ours, theirs) = (ours(machine, |_| ()), oracle(machine));
        let judged =
            conditional().into_iter().map(|(name, _)| name).chain(["socket", "socketpair"]);
        let judged: Vec<u32> = judged.filter_map(|name| Calls::of(machine).number(name)).collect();
        let mut refused = 0;
        for number in LOOKED_AT {
            let of_call: Vec<[u64; 6]> =
                if judged.contains(&number) { arguments().collect() } else { plain.to_vec() };
            for arguments in of_call {
                let call = Call { arch: machine.arch().audit, number, arguments };
                let each = theirs.iter().map(|program| answer(program, call));
                let expected = each.into_iter().find(|&answer| answer != ALLOW).unwrap_or(ALLOW);
                assert_eq!(answer(&ours, call), expected, "{machine:?} {call:x?}");
                refused += usize::from(expected != ALLOW);
            }
        }
        assert!(refused > 1000, "{machine:?}: {refused}");
    }
}

/// Where denials are explained, what the filter hands over is answered by the same rules: with the
/// errno that it would have had, or by letting it go on. Nothing that it refused is let go on, and
/// nothing is handed over that is made before exec.
#[test]
fn the_answers_to_what_is_handed_over_are_those_of_the_filter() {
    const NOTICE: u32 = libc::SECCOMP_RET_USER_NOTIF;
    for (machine, level) in BOTH.into_iter().flat_map(|m| [(m, Level::Fence), (m, Level::Sandbox)])
    {
        let made = |explain| {
            let mut request = Request::new(level);
            request.explain = explain;
            request.denied.extend(["execve", "getpid"].map(String::from));
            let answers = watch::Answers::new(machine, &request).expect("answers");
            let made = program(machine, &request).expect("a program");
            let made: Vec<_> =
                made.iter().map(|each| (each.code, each.jt, each.jf, each.k)).collect();
            (made, answers)
        };
        let ((plain, _), (explained, answers)) = (made(false), made(true));
        let of = |name: &str| Calls::of(machine).number(name);
        let judged = conditional().into_iter().map(|(name, _)| name);
        let judged: Vec<u32> = judged.chain(["socket", "statx", "sendto"]).filter_map(of).collect();
        let never = ["execve", "execveat", "sendmsg", "write", "exit_group"].map(of);
        let (mut seen, mut refused) = (0, 0);
        for number in LOOKED_AT {
            let all: Vec<[u64; 6]> = match judged.contains(&number) {
                true => arguments().collect(),
                false => vec![[0; 6], [u64::MAX; 6]],
            };
            for arguments in all {
                let call = Call { arch: machine.arch().audit, number, arguments };
                let (before, now) = (answer(&plain, call), answer(&explained, call));
                let refusal_of = answers.refusal(number, arguments);
                if now != NOTICE {
                    assert_eq!(now, before, "{machine:?} {call:x?}");
                    continue;
                }
                let then = refusal_of.map_or(ALLOW, |it| refusal(it.errno));
                assert_eq!(then, before, "{machine:?} {call:x?}");
                assert!(!never.contains(&Some(number)), "{machine:?} {call:x?}");
                seen += 1;
                refused += usize::from(before != ALLOW);
            }
        }
        assert!(refused > 1000 && seen > refused + 20, "{machine:?}: {seen}, {refused}");
        assert!(explained.len() < 600, "{} instructions", explained.len());
    }
}

#[test]
fn another_convention_ends_the_process() {
    for machine in BOTH {
        let ours = ours(machine, |_| ());
        let own = machine.arch().audit;
        let answer = |arch, number| answer(&ours, Call { arch, number, arguments: [0; 6] });
        for arch in [0x4000_0003, 0x4000_0028, 0, own ^ 1] {
            assert_eq!(answer(arch, 1), KILL, "{machine:?} {arch:#x}");
        }
        // x32 calls read(2) so.
        assert_eq!(answer(own, 0x4000_0000), KILL);
        assert_eq!(answer(own, 0x4000_0000 + 520), KILL);
        assert_eq!(answer(own, u32::MAX - 1), KILL);
        assert_eq!(answer(own, u32::MAX), refusal(ENOSYS), "called off by a tracer");
        assert_eq!(answer(own, 0x3fff_ffff), refusal(ENOSYS));
    }
}

#[test]
fn a_caller_may_allow_and_refuse_more() {
    for machine in BOTH {
        let calls = Calls::of(machine);
        let of = |name: &str| calls.number(name).unwrap_or_default();
        let changed = ours(machine, |request| {
            request.allowed.extend(["ptrace", "fchmod", "510"].map(String::from));
            request.denied.extend(["socket", "getpid"].map(String::from));
        });
        let answer = |number, arguments| {
            answer(&changed, Call { arch: machine.arch().audit, number, arguments })
        };
        assert_eq!(answer(of("ptrace"), [0; 6]), ALLOW);
        assert_eq!(answer(of("fchmod"), [0, 0o4755, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer(510, [0; 6]), ALLOW);
        assert_eq!(answer(511, [0; 6]), refusal(ENOSYS));
        assert_eq!(answer(of("socket"), [1, 0, 0, 0, 0, 0]), refusal(EPERM));
        assert_eq!(answer(of("getpid"), [0; 6]), refusal(EPERM));
        assert_eq!(answer(of("gettid"), [0; 6]), ALLOW);
        let mut wrong = Request::new(Level::Fence);
        wrong.denied.insert("frobnicate".to_owned());
        let error = program(machine, &wrong).map(drop).expect_err("no such call");
        assert!(error.is_invalid_input() && error.to_string().contains("\"frobnicate\""));
    }
}

/// A filter that is jumped through wrongly is refused by the kernel, or worse.
#[test]
fn the_program_is_short_and_every_jump_stays_inside() {
    for machine in BOTH {
        let program = ours(machine, |_| ());
        assert!(program.len() < 160, "{} instructions", program.len());
        for (at, &(code, jt, jf, k)) in program.iter().enumerate() {
            let furthest = match code {
                0x05 => k as usize,
                0x06 => continue,
                _ => usize::from(jt.max(jf)),
            };
            assert!(at + 1 + furthest < program.len(), "{machine:?}: at {at}");
        }
        // Five steps a comparison: no answer is further than this from the first instruction.
        assert!(matches!(program.last(), Some((0x06, ..))));
    }
}

#[test]
fn the_numbers_are_those_of_libc() {
    macro_rules! own {
        ($($name:ident $number:ident,)*) => {
            [$((stringify!($name), libc::$number)),*]
        };
    }
    let own = own! {
        read SYS_read, clone SYS_clone, clone3 SYS_clone3, openat SYS_openat, ioctl SYS_ioctl,
        openat2 SYS_openat2, prlimit64 SYS_prlimit64, fchmod SYS_fchmod, fchmodat SYS_fchmodat,
        unshare SYS_unshare, setns SYS_setns, keyctl SYS_keyctl, bpf SYS_bpf, mount SYS_mount,
        ptrace SYS_ptrace, userfaultfd SYS_userfaultfd, socket SYS_socket, mknodat SYS_mknodat,
        io_uring_setup SYS_io_uring_setup, pidfd_getfd SYS_pidfd_getfd, kcmp SYS_kcmp,
        setpriority SYS_setpriority, ioprio_set SYS_ioprio_set, chroot SYS_chroot,
        sched_setattr SYS_sched_setattr, sched_setaffinity SYS_sched_setaffinity,
        process_vm_writev SYS_process_vm_writev, perf_event_open SYS_perf_event_open,
        open_by_handle_at SYS_open_by_handle_at, move_mount SYS_move_mount, exit SYS_exit,
    };
    let Some(machine) = Machine::own() else { return };
    let calls = Calls::of(machine);
    for (name, number) in own {
        assert_eq!(calls.number(name).map(i64::from), Some(number), "{name}");
    }
    for machine in BOTH {
        let mut numbers: Vec<u32> = Calls::of(machine).numbers().collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert!(count > 280 && numbers.len() == count, "{machine:?}: {count}");
    }
}
