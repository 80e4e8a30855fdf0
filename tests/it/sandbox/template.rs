//! Later commands of a sandbox enter what an earlier one has made: that they see and reach no more
//! than the first.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serial_test::serial;
use tidy_process::{Child, Command, Network, Sandbox, Stdio};

use super::{boxed, open_dir, said, stage};
use crate::support::{Alone, Stage, until};

/// The first command makes no template, the second one does.
pub(super) const WARM: usize = 2;

pub(super) fn warm(stage: &Stage, sandbox: &Sandbox) {
    (0..WARM).for_each(|_| drop(boxed(stage, "true", sandbox).run().unwrap()));
}

const KINDS: &str = "cgroup ipc mnt net pid user uts";

/// Says which namespaces it is in, in the order of [`KINDS`].
fn telling() -> String {
    format!("cd /proc/self/ns; for kind in {KINDS}; do readlink $kind; done | tr '\\n' ' '; echo")
}

/// What it has told.
fn told(child: &mut Child) -> Vec<String> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

/// The namespaces of a command.
fn namespaces(stage: &Stage, sandbox: &Sandbox) -> Vec<String> {
    said(stage, &telling(), sandbox).split_whitespace().map(str::to_owned).collect()
}

fn different(all: &[Vec<String>], kind: &str) -> usize {
    let place = KINDS.split(' ').position(|name| name == kind).unwrap();
    all.iter().map(|one| &one[place]).collect::<BTreeSet<_>>().len()
}

#[test]
#[serial]
fn one_after_the_other_is_the_same_user_in_the_same_empty_network() {
    let Some(stage) = stage() else { return };
    for network in [Network::None, Network::Host] {
        let sandbox = Sandbox::new().system().network(network);
        let runs: Vec<_> = (0..6).map(|_| namespaces(&stage, &sandbox)).collect();
        // The first one makes no template.
        let later = &runs[1..];
        assert_eq!(different(later, "user"), 1, "{network}: {runs:#?}");
        assert_eq!(different(later, "net"), 1, "{network}: {runs:#?}");
    }
    stage.close(Alone::Yes);
}

/// They share the user namespace alone.
#[test]
#[serial]
fn many_at_a_time_are_in_no_network_together() {
    let Some(stage) = stage() else { return };
    for network in [Network::None, Network::Loopback] {
        let sandbox = Sandbox::new().system().network(network);
        warm(&stage, &sandbox);
        let start = || {
            let mut command = boxed(&stage, &format!("{}; read line", telling()), &sandbox);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        };
        let mut children: Vec<_> = (0..12).map(|_| start()).collect();
        let all: Vec<Vec<String>> = children.iter_mut().map(told).collect();
        for kind in KINDS.split(' ') {
            let expected = if kind == "user" { 1 } else { 12 };
            assert_eq!(different(&all, kind), expected, "{kind}: {all:#?}");
        }
        // One that was killed gives its network back, and one that is dropped.
        for (number, child) in children.into_iter().enumerate() {
            if number % 2 == 0 {
                child.finish().unwrap();
            }
        }
        if network == Network::None {
            let next = &namespaces(&stage, &sandbox)[3];
            assert!(all.iter().any(|one| &one[3] == next), "{next} of {all:#?}");
        }
    }
    stage.close(Alone::Yes);
}

/// What is private is there for each command anew, and is gone with it.
#[test]
#[serial]
fn nothing_private_stays_for_the_next() {
    let Some(stage) = stage() else { return };
    let dir = open_dir("private");
    fs::create_dir_all(dir.join("cache/deep")).unwrap();
    let sandbox =
        Sandbox::new().system().read_only(&dir).private("/own").private(dir.join("cache"));
    let cache = dir.join("cache");
    let script = format!(
        "for dir in /tmp /dev/shm /own {}; do ls -A $dir; echo x >$dir/left || exit 1; done; \
         ls -A /; grep -c . /proc/sysvipc/shm",
        cache.display()
    );
    let all: BTreeSet<_> = (0..5).map(|_| said(&stage, &script, &sandbox)).collect();
    let seen: Vec<_> = all.iter().map(String::as_str).collect();
    let shown = dir.file_name().unwrap().to_str().unwrap();
    // The directory lies in the private /tmp: nothing else does.
    assert!(seen.len() == 1 && seen[0].starts_with(&format!("{shown}\n")), "{seen:#?}");
    assert!(!cache.join("left").exists());
    fs::remove_dir_all(dir).unwrap();
    drop(sandbox);
    stage.close(Alone::Yes);
}

/// A directory within `/tmp`, with what is covered and what is hidden in it, is the same to all.
#[test]
#[serial]
fn the_view_of_the_first_is_that_of_the_others() {
    let Some(stage) = stage() else { return };
    let dir = open_dir("views");
    for place in ["work/.git/hooks", "work/cache/kept", "read"] {
        fs::create_dir_all(dir.join(place)).unwrap();
    }
    open(&dir);
    fs::write(dir.join("work/secret"), "s").unwrap();
    fs::write(dir.join("file"), "f").unwrap();
    let work = dir.join("work");
    let sandbox = Sandbox::new()
        .system()
        .read_write(&work)
        .read_only(work.join(".git/hooks"))
        .hide(work.join("secret"))
        .private(work.join("cache"))
        .read_only(work.join("cache/kept"))
        .read_only(dir.join("read"))
        .read_only(dir.join("file"))
        .hide("/proc/sys");
    let script = format!(
        "cd {}; find . | sort; cat file work/secret; ls -A / /tmp /dev /proc/sys; \
         for file in work/x work/.git/hooks/x work/cache/x work/cache/kept/x read/x file; do \
         (echo x >$file) 2>/dev/null && echo can $file; done; \
         mv work/.git work/git 2>/dev/null && echo moved; rm -f work/x; \
         awk '$5 != \"/proc\" {{ print $5, $6 }}' /proc/self/mountinfo | sort",
        dir.display()
    );
    let all: Vec<_> = (0..4).map(|_| said(&stage, &script, &sandbox)).collect();
    let can = |path: &str| all[0].contains(&format!("can {path}\n"));
    assert!(can("work/x") && can("work/cache/x"), "{}", all[0]);
    assert!(!can("work/.git/hooks/x") && !can("work/cache/kept/x"), "{}", all[0]);
    for (number, other) in all.iter().enumerate().skip(1) {
        assert_eq!(&all[0], other, "{number}");
    }
    fs::remove_dir_all(dir).unwrap();
    drop(sandbox);
    stage.close(Alone::Yes);
}

/// Another directory at a path that is named is what the next command sees.
#[test]
#[serial]
fn what_is_put_in_the_place_of_a_path_is_seen() {
    let Some(stage) = stage() else { return };
    let dir = open_dir("replaced");
    let named = dir.join("named");
    let make = |word: &str| {
        fs::create_dir(&named).unwrap();
        fs::write(named.join("word"), word).unwrap();
        fs::write(named.join("hidden"), "SECRET").unwrap();
        open(&named);
    };
    make("first");
    let sandbox = Sandbox::new().system().read_only(&named).hide(named.join("hidden"));
    let script = format!("cat {0}/word {0}/hidden 2>/dev/null", named.display());
    for _ in 0..=WARM {
        assert_eq!(said(&stage, &script, &sandbox), "first");
    }
    fs::rename(&named, dir.join("old")).unwrap();
    make("second");
    for _ in 0..=WARM {
        assert_eq!(said(&stage, &script, &sandbox), "second");
    }
    // The hidden file is replaced: a cover of the old one would not cover it.
    fs::rename(named.join("word"), named.join("hidden")).unwrap();
    fs::write(named.join("word"), "third").unwrap();
    for _ in 0..=WARM {
        assert_eq!(said(&stage, &script, &sandbox), "third");
    }
    fs::remove_dir_all(&named).unwrap();
    let refused =
        |sandbox: &Sandbox| boxed(&stage, &script, sandbox).run().unwrap_err().to_string();
    assert!(refused(&sandbox).contains("ENOENT"), "{}", refused(&sandbox));
    symlink(dir.join("old"), &named).unwrap();
    assert!(refused(&sandbox).contains("ELOOP"), "{}", refused(&sandbox));
    fs::remove_file(&named).unwrap();
    make("fourth");
    assert_eq!(said(&stage, &script, &sandbox), "fourth");
    fs::remove_dir_all(dir).unwrap();
    drop(sandbox);
    stage.close(Alone::Yes);
}

/// The kernel takes a mount away, in every namespace, when the host removes what it is on. A file
/// made anew often gets the number of the old one.
#[test]
#[serial]
fn what_is_covered_stays_so_when_it_is_made_anew() {
    let Some(stage) = stage() else { return };
    let dir = open_dir("anew");
    let (hidden, makefile, hooks) = (dir.join("hidden"), dir.join("Makefile"), dir.join("hooks"));
    let make = || {
        for file in [&hidden, &makefile] {
            let _ = fs::remove_file(file);
            fs::write(file, "SECRET").unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
        }
        let _ = fs::remove_dir_all(&hooks);
        fs::create_dir(&hooks).unwrap();
        open(&dir);
    };
    make();
    let sandbox = Sandbox::new().system().read_write(&dir);
    let sandbox = sandbox.hide(&hidden).read_only(&makefile).read_only(&hooks);
    let script = format!(
        "cd {}; cat hidden; echo x >Makefile; echo x >hooks/x; echo well >well",
        dir.display()
    );
    for round in 0..12 {
        // In an editor's way, too: by another file that takes the name, there and back.
        if round % 3 == 2 {
            for _ in 0..2 {
                fs::write(dir.join("new"), "SECRET").unwrap();
                fs::set_permissions(dir.join("new"), PermissionsExt::from_mode(0o666)).unwrap();
                fs::rename(dir.join("new"), &hidden).unwrap();
            }
        } else if round > 2 {
            make();
        }
        let said = said(&stage, &format!("({script}) 2>/dev/null"), &sandbox);
        assert_eq!(said, "", "{round}");
        assert_eq!(fs::read_to_string(&makefile).unwrap(), "SECRET", "{round}");
        assert!(!hooks.join("x").exists(), "{round}");
        fs::remove_file(dir.join("well")).unwrap();
    }
    fs::remove_dir_all(dir).unwrap();
    drop(sandbox);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn another_user_has_a_template_of_its_own() {
    let Some(stage) = stage() else { return };
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skip("only root runs commands as others");
    }
    let sandbox = Sandbox::new().system();
    let who = |uid: Option<u32>| {
        let mut command: Command = boxed(&stage, "id -u", &sandbox);
        uid.map(|uid| command.uid(uid).gid(uid));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    for _ in 0..3 {
        for uid in [Some(4242), Some(4243), None, Some(4242)] {
            let expected = uid.unwrap_or(2_147_352_576);
            assert_eq!(who(uid), format!("{expected}\n"));
        }
    }
    drop(sandbox);
    stage.close(Alone::Yes);
}

/// A machine that refuses to enter one, or to make one: commands run as the first.
#[test]
#[serial]
fn where_no_template_can_be_had_all_run_without() {
    let Some(stage) = stage() else { return };
    const TEMPLATE: usize = 20;
    let sandbox = Sandbox::new().system().fail_at(TEMPLATE);
    for _ in 0..4 {
        let ended = boxed(&stage, "exit 7", &sandbox).run().unwrap();
        assert_eq!(ended.status.code(), Some(7));
        stage.assert_clean("without a template");
    }
    // At one time: the number of a namespace that is gone is given again.
    let start = |_| {
        let mut command = boxed(&stage, &format!("{}; read line", telling()), &sandbox);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut children: Vec<_> = (0..2).map(start).collect();
    let all: Vec<_> = children.iter_mut().map(told).collect();
    assert_eq!(different(&all, "user"), 2, "{all:?}");
    drop((children, sandbox));
    stage.close(Alone::Yes);
}

/// Lets everybody write to each directory below.
fn open(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    let entries = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).for_each(|path| open(&path));
}

/// Fds of this process.
fn fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
#[serial]
fn a_template_costs_a_few_fds_and_they_go_with_the_sandbox() {
    let Some(stage) = stage() else { return };
    let before = fds();
    let sandbox = Sandbox::new().system();
    warm(&stage, &sandbox);
    let warm = fds();
    for _ in 0..20 {
        boxed(&stage, "true", &sandbox).run().unwrap();
    }
    assert_eq!(fds(), warm);
    let children: Vec<_> =
        (0..20).map(|_| boxed(&stage, "sleep 9", &sandbox).spawn().unwrap()).collect();
    drop(children);
    // Seven more networks lie ready then, each with the count of its sockets.
    assert!(fds() <= warm + 14, "{} of {warm}", fds());
    drop(sandbox);
    assert!(until(std::time::Duration::from_secs(5), || fds() <= before), "{} of {before}", fds());
    assert!(Path::new("/proc/self/fd").exists());
    stage.close(Alone::Yes);
}
