//! Every victim and what takes permissions away, at both levels, as each user: 0 left. (`victims`
//! has them in a fence, `sandbox::life` in a sandbox, as the user of the tests.)

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::serial;
use tidy_process::{Command, Placement, Sandbox, Supervisor};

use crate::actor::{ROLE, actor};
use crate::attacks::permissions::{ATTACKS, succeeds_as_ordinary};
use crate::attacks::succeeds;
use crate::sandbox::life::IMPOSSIBLE;
use crate::support::{Alone, Stage, read_ready};
use crate::victim;
use crate::victims::{End, REFUSED, by_library};

/// Victims that come to their state with nothing but their program.
const HOSTILE: [&str; 3] = ["long-command", "many-words", "evil-words"];

const ROLES: [&str; 2] = ["levels-fence", "levels-sandbox"];

struct Level {
    name: &'static str,
    sandbox: Sandbox,
    /// What these do is refused.
    refused: &'static [&'static str],
}

fn levels() -> [Level; 2] {
    let view = Sandbox::new().system().read_only(victim::exe());
    [
        Level { name: "fence", sandbox: Sandbox::fence(), refused: &REFUSED },
        Level { name: "sandbox", sandbox: view, refused: &IMPOSSIBLE },
    ]
}

impl Level {
    fn victim(&self, stage: &Stage, name: &str) -> Command {
        let mut command = stage.victim(name);
        command.sandbox(&self.sandbox).current_dir("/");
        command
    }
}

/// As an actor, whose role ends with the level: root, or an ordinary user.
pub(crate) fn play(role: &str) {
    // SAFETY: this is the only thread.
    #[expect(unsafe_code, reason = "what is started here is no actor")]
    unsafe {
        std::env::remove_var(ROLE)
    };
    let stage = Stage::set().unwrap();
    for level in levels().iter().filter(|level| role.ends_with(level.name)) {
        let all = victim::names().iter().chain(&HOSTILE);
        let possible = all.filter(|name| !level.refused.contains(name) && **name != "nobody");
        for name in possible {
            for end in [End::Finish, End::Drop] {
                let mut command = level.victim(&stage, name);
                by_library(&stage, command.force_join(false), name, end, Placement::Born);
            }
            let mut command = level.victim(&stage, name);
            by_library(&stage, command.force_join(true), name, End::Drop, Placement::Joined);
            #[cfg(feature = "cli")]
            by_tool(&stage, level, name);
        }
        for name in level.refused {
            let report = level.victim(&stage, name).run().unwrap();
            assert_eq!(report.status.code(), Some(99), "{name} in a {}: {report}", level.name);
        }
        permissions_are_given_back(&stage, level);
        main_is_ended_by_others(&stage, level);
    }
    stage.close(Alone::Yes);
}

#[cfg(feature = "cli")]
fn by_tool(stage: &Stage, level: &Level, name: &str) {
    let exe = victim::exe();
    let view = ["--read", exe.to_str().unwrap(), "--keep-env", "TIDY_VICTIM"];
    let view = [&["--sandbox", "-C", "/", "--keep-env", "TIDY_MARK"][..], &view].concat();
    let options = if level.name == "fence" { vec!["--fence"] } else { view };
    crate::victims::by_command_line(stage, name, &options);
    stage.assert_clean(&format!("{name}, in a {}, command line", level.name));
}

/// In a fence modes can be changed; a teardown and the next spawn give them back.
fn permissions_are_given_back(stage: &Stage, level: &Level) {
    for attack in ATTACKS.iter().filter(|attack| !attack.contains("$B")) {
        let what = format!("{attack} in a {}", level.name);
        let supervisor = Supervisor::builder().guard(false).build().unwrap();
        let root = supervisor.path().unwrap().to_owned();
        let script = format!("(set -e; L=$(echo $R/*-it); {attack}) 2>/dev/null; exec $V");
        let mut command = level.victim(stage, "plain");
        let sh = |command: &mut Command, script: &str| {
            let mut sh = Command::new("sh");
            sh.args(["-c", script]).name("it").supervisor(&supervisor).current_dir("/");
            sh.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
            sh.sandbox(&level.sandbox).env("R", &root).env("V", victim::exe());
            sh.stdout(tidy_process::Stdio::piped());
            sh
        };
        let mut child = sh(&mut command, &script).spawn().unwrap();
        read_ready(child.stdout.take().unwrap());
        let report = child.finish().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(report.status.signal(), Some(libc::SIGKILL), "{what}: {report}");
        drop(child);
        let again = sh(&mut command, "exit 3").run();
        let again = again.unwrap_or_else(|error| panic!("{what}: again: {error}"));
        assert_eq!(again.status.code(), Some(3), "{what}");
        supervisor.close().unwrap();
        assert!(!root.exists(), "{what}: {root:?} is left");
        assert_eq!(stage.alive(), [0_i32; 0], "{what}");
    }
}

/// By a stranger, who kills it, or stops it for good.
fn main_is_ended_by_others(stage: &Stage, level: &Level) {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let mut child = level.victim(stage, "daemon").spawn().unwrap();
        read_ready(child.stdout.take().unwrap());
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let report = child.finish().unwrap();
        assert_eq!(report.status.signal(), Some(libc::SIGKILL));
        drop(child);
        stage.assert_clean(&format!("{signal} in a {}", level.name));
    }
    // Its main process has ended, and nothing has reaped it.
    let mut child = level.victim(stage, "daemon-exit").spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    drop(child);
    stage.assert_clean(&format!("not reaped in a {}", level.name));
}

#[test]
#[serial]
fn nothing_is_left_of_any_victim_at_any_level() {
    let Some(stage) = crate::sandbox::stage() else { return };
    for role in ROLES {
        succeeds(&mut actor(&stage, role), role);
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn nor_of_any_that_an_ordinary_user_has() {
    let Some(stage) = crate::sandbox::stage() else { return };
    for role in ROLES {
        succeeds_as_ordinary(&stage, actor(&stage, role));
    }
    stage.close(Alone::Yes);
}
