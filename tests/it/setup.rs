//! `doctor --setup`: what root types for an ordinary user makes cgroups work for that user, now,
//! after a boot and at each login. In a mount namespace with an `/etc` of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serial_test::parallel;

use crate::support::{Alone, SOON, Stage, lacks, tool, until};

const NOBODY: u32 = 65534;

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// None where the tests of this file cannot run.
fn stage() -> Option<Stage> {
    if !nix::unistd::geteuid().is_root() {
        lacks("users", "only root sets up users");
        return None;
    }
    Stage::set()
}

/// The cgroup that is made for nobody.
fn dir(stage: &Stage) -> PathBuf {
    stage.supervisor.path().unwrap().join(format!("user-{NOBODY}"))
}

/// Runs a shell script with an `/etc` of its own, which goes with it; `$T` is the tool, `$P` the
/// base, `in_etc` what it has of /etc. The services of PAM that `su` uses are there.
fn with_own_etc(stage: &Stage, script: &str) -> Output {
    let etc = "set -e; etc=$(mktemp -d); mount -t tmpfs none $etc; \
        cp -a /etc/passwd /etc/group /etc/shadow /etc/nsswitch.conf /etc/pam.d /etc/security \
        /etc/login.defs /etc/ld.so.cache $etc 2>/dev/null || :; mkdir -p $etc/cron.d; \
        mount --bind $etc /etc; umount -l $etc; rmdir $etc; mkdir -p $P/aside; chmod 755 $P; ";
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &format!("{etc}{script}")]);
    stage.mark_std(&mut command);
    command.env("T", tool()).env("P", stage.supervisor.path().unwrap()).output().unwrap()
}

/// As `nobody` after a login: what a run gives, and the cgroup that it was in.
const LOGIN: &str = "su -s /bin/sh nobody -c 'unset TIDY_PROCESS_PARENT; \
    sed -n s/^0:://p /proc/self/cgroup; \
    '$T' run -- sed -n s/^0:://p /proc/self/cgroup; '$T' run -- sh -c \"exit 7\"' \
    || echo status $?";

/// What root has made is root's to remove: the guards in it have their exec behind them.
fn remove(stage: &Stage) {
    let dir = dir(stage);
    let gone = |path: &Path| until(SOON, || fs::remove_dir(path).is_ok());
    assert!(gone(&dir.join("tidy-process-supervisor")) && gone(&dir), "{dir:?} is not empty");
    let _ = fs::remove_dir(stage.supervisor.path().unwrap().join("aside"));
}

fn assert_works(output: &Output) {
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    let lines: Vec<&str> = out.lines().collect();
    let leaf = format!("/user-{NOBODY}/tidy-process-supervisor");
    let inside = format!("/user-{NOBODY}/tidy-process-");
    assert!(lines.len() >= 3, "{out}{err}");
    let [login, run, status] = lines[lines.len() - 3..] else { panic!("{out}{err}") };
    assert!(login.ends_with(&leaf), "{out}{err}");
    assert!(run.contains(&inside) && !run.contains(&leaf), "{out}{err}");
    assert_eq!(status, "status 7", "{out}{err}");
}

fn skip_with_systemd() -> bool {
    let systemd = Path::new("/run/systemd/system").exists();
    if systemd {
        lacks("systemd", "with systemd it is the user's manager that gives cgroups");
    }
    systemd
}

#[test]
#[parallel]
fn after_apply_a_user_who_logs_in_has_a_cgroup_of_his_own() {
    let Some(stage) = stage() else { return };
    if skip_with_systemd() {
        return;
    }
    let script = format!("$T doctor --setup nobody --parent $P --apply; {LOGIN}");
    let output = with_own_etc(&stage, &script);
    assert_works(&output);
    let said = said(&output.stderr);
    assert_eq!(said, "tidy-process: nobody may make cgroups, from the next login on\n");
    remove(&stage);
    stage.close(Alone::No);
}

/// What is printed may be kept in a file and run by hand; and once more.
#[test]
#[parallel]
fn what_is_printed_does_the_same_when_it_is_typed() {
    let Some(stage) = stage() else { return };
    if skip_with_systemd() {
        return;
    }
    let script = format!(
        "$T doctor --setup {NOBODY} --parent $P >/etc/typed; test ! -e /etc/tidy-process; \
        sh /etc/typed; rm /etc/typed; cp -a /etc /tmp/typed-$$; \
        $T doctor --setup nobody --parent $P --apply 2>/dev/null; \
        diff -r /etc /tmp/typed-$$ >&2 || :; \
        rm -r /tmp/typed-$$; {LOGIN}"
    );
    let output = with_own_etc(&stage, &script);
    assert_eq!(said(&output.stderr), "");
    assert_works(&output);
    remove(&stage);
    stage.close(Alone::No);
}

/// Each kind of boot: cron's `@reboot`, OpenRC's local.d, an rc.local that ends with `exit 0`.
#[test]
#[parallel]
fn after_a_boot_the_cgroup_is_there_again() {
    let Some(stage) = stage() else { return };
    if skip_with_systemd() {
        return;
    }
    let cron = ("", "sh -c \"$(sed -n 's/^@reboot root //p' /etc/cron.d/tidy-process-*)\"");
    let openrc = ("mkdir /etc/local.d", "for each in /etc/local.d/*.start; do $each; done");
    let local = ("printf '#!/bin/sh\\nexit 0\\n' >/etc/rc.local", "/etc/rc.local");
    let first = ("rmdir /etc/cron.d", "/etc/rc.local");
    for (has, boot) in [cron, openrc, local, first] {
        let script = format!(
            "{has}\n $T doctor --setup nobody --parent $P --apply; \
            rmdir $P/user-{NOBODY}/tidy-process-supervisor $P/user-{NOBODY}; {boot}; \
            test -d $P/user-{NOBODY}; {LOGIN}"
        );
        assert_works(&with_own_etc(&stage, &script));
        remove(&stage);
    }
    stage.close(Alone::No);
}

/// A login of another user is left where it is, and so is one inside a tree: nothing would end it
/// with the tree.
#[test]
#[parallel]
fn a_login_inside_a_tree_stays_there() {
    let Some(stage) = stage() else { return };
    if skip_with_systemd() {
        return;
    }
    let script = "$T doctor --setup nobody --parent $P/aside --apply 2>/dev/null; \
        where='sed -n s/^0:://p /proc/self/cgroup'; \
        $T run -- su -s /bin/sh nobody -c \"$where\"; su -s /bin/sh root -c \"$where\"";
    let output = with_own_etc(&stage, script);
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(out.lines().count() == 2 && err.is_empty(), "{out}{err}");
    assert!(!out.contains("user-"), "{out}");
    let aside = stage.supervisor.path().unwrap().join("aside");
    let made = aside.join(format!("user-{NOBODY}"));
    for path in [made.join("tidy-process-supervisor"), made, aside] {
        fs::remove_dir(&path).unwrap();
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn an_open_shell_is_moved_by_its_pid() {
    let Some(stage) = stage() else { return };
    if skip_with_systemd() {
        return;
    }
    let script = format!(
        "rm -r /etc/pam.d; $T doctor --setup nobody --parent $P --apply; \
        sh -c '/etc/tidy-process/user-{NOBODY} $$; exec sed -n s/^0:://p /proc/self/cgroup'"
    );
    let output = with_own_etc(&stage, &script);
    let err = said(&output.stderr);
    assert!(err.starts_with("tidy-process: no PAM here: "), "{err}");
    let expected = format!("/user-{NOBODY}/tidy-process-supervisor\n");
    assert!(said(&output.stdout).ends_with(&expected), "{err}");
    remove(&stage);
    stage.close(Alone::No);
}

/// With systemd it is `loginctl enable-linger`; a stand-in notes what is asked of it.
#[test]
#[parallel]
fn with_systemd_the_users_manager_is_started_and_given_all_controllers() {
    let Some(stage) = stage() else { return };
    let script = "mount -t tmpfs none /run; mkdir -p /run/systemd/system /run/bin; \
        for name in loginctl systemctl; do \
        printf '#!/bin/sh\\necho \"$(basename \"$0\") $*\" >>/run/asked\\n' >/run/bin/$name; done; \
        chmod 755 /run/bin/*; PATH=/run/bin:$PATH $T doctor --setup nobody --apply; \
        cat /run/asked /etc/systemd/system/user@.service.d/tidy-process.conf; rmdir $P/aside";
    let output = with_own_etc(&stage, script);
    let expected = "loginctl enable-linger nobody\nsystemctl daemon-reload\n\
        [Service]\nDelegate=cpu cpuset io memory pids\n";
    assert_eq!(said(&output.stdout), expected, "{}", said(&output.stderr));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn who_needs_no_setup_or_is_not_there_is_refused() {
    let refused = |args: &[&str], expected: &str| {
        let output = Command::new(tool()).arg("doctor").args(args).output().unwrap();
        let said = said(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    refused(&["--setup", "root"], "doctor --setup \"root\": root may make cgroups as it is");
    refused(&["--setup", "no-such-user"], "there is no such user");
    refused(&["--setup", "4294967290"], "there is no such user");
    refused(&["--setup", "nobody", "--parent", "/tmp"], "open cgroup base \"/tmp\"");
    refused(&["--apply"], "--setup <USER>");
    refused(&["--setup", "nobody", "--json"], "cannot be used with");
}
