//! Looking at a tree never costs the killing: it is bounded in time, memory and words, whatever the
//! processes do.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command as StdCommand;
use std::time::{Duration, Instant};

use serial_test::serial;
use tidy_process::{Child, Ready, Stdio};

use crate::support::{Alone, SOON, Stage, read_ready, skip, until};
use crate::victim;

/// Looking may take 1 s, and a busy machine longer.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(feature = "cli")]
mod large {
    use serde_json::Value;
    use serial_test::serial;

    use super::PATIENCE;
    use crate::attacks::{Measured, measured};
    use crate::support::{Alone, Stage};
    use crate::victim;

    /// KiB: what looks at a hundred processes needs a few.
    const MEMORY: u64 = 100 * 1024;

    fn run(stage: &Stage, victim: &str, options: &[&str]) -> (Measured, Value) {
        let report = std::env::temp_dir().join(format!("tidy-look-{}.json", std::process::id()));
        let mut tool = stage.tool(&["run", "--leaks=report", "--json", report.to_str().unwrap()]);
        tool.args(options).arg("--").arg(victim::exe()).env("TIDY_VICTIM", victim);
        let seen = measured(tool);
        let text = std::fs::read_to_string(&report).unwrap_or_default();
        let _ = std::fs::remove_file(report);
        stage.assert_clean(victim);
        assert_eq!(seen.status.and_then(|status| status.code()), Some(0), "{seen:?}");
        let text_len = text.len();
        (seen, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text_len} bytes")))
    }

    /// On both spawn paths and under a keeper, as many leftovers; what is said of them.
    fn bounded(victim: &str, count: u64, check: impl Fn(&Value)) {
        let Some(stage) = Stage::set() else { return };
        for options in [&[][..], &["--force-join"], &["--containment=keeper"]] {
            let (seen, report) = run(&stage, victim, options);
            let said = seen.stderr.len();
            eprintln!("{victim} {options:?}: {:?}, {} KiB, {said} bytes", seen.took, seen.peak);
            assert!(seen.took < PATIENCE, "{victim}: took {:?}", seen.took);
            assert!(seen.peak < MEMORY, "{victim}: {} KiB", seen.peak);
            let longest = seen.stderr.lines().map(|line| line.chars().count()).max();
            assert!(longest.unwrap() <= 200, "{victim}: a line of {longest:?} characters");
            assert_eq!(report["leftover_count"], count, "{report}");
            let named = report["leftovers"].as_array().unwrap();
            assert_eq!(named.len() as u64, count.min(100));
            named.iter().for_each(&check);
        }
        stage.close(Alone::No);
    }

    fn is_cut(process: &Value) {
        let words = process["command"].as_array().unwrap();
        let bytes: usize = words.iter().map(|word| word.as_str().unwrap().len()).sum();
        assert!(words.len() <= 64 && bytes <= 4096, "{} words, {bytes} bytes", words.len());
        let gaps = process["missing"].as_array().unwrap();
        let cut = gaps.iter().find(|gap| gap["field"] == "command").expect("it says nothing");
        assert!(cut["reason"].as_str().unwrap().starts_with("cut after "), "{cut}");
    }

    #[test]
    #[serial]
    fn a_command_line_of_half_a_gibibyte_is_cut() {
        bounded("long-command", 1, is_cut);
    }

    #[test]
    #[serial]
    fn two_hundred_thousand_words_are_cut() {
        bounded("many-words", 20, is_cut);
    }

    #[test]
    #[serial]
    fn three_thousand_sockets_in_sixty_processes_are_cut() {
        bounded("many-sockets", 60, |process| {
            let ports = process.get("ports").map_or(0, |ports| ports.as_array().unwrap().len());
            assert!(ports <= 64, "{ports} ports");
            let gaps = process["missing"].as_array().unwrap();
            assert!(gaps.iter().any(|gap| gap["field"] == "ports"), "{process}");
        });
    }

    #[test]
    #[serial]
    fn of_three_hundred_leftovers_a_hundred_are_named_and_all_are_counted() {
        let Some(stage) = Stage::set() else { return };
        let script = "for i in $(seq 300); do sleep 20 & done";
        for leaks in ["kill", "report"] {
            let seen = measured(stage.tool(&[
                "run",
                &format!("--leaks={leaks}"),
                "--",
                "sh",
                "-c",
                script,
            ]));
            let lines: Vec<&str> = seen.stderr.lines().collect();
            assert!(
                lines[0].starts_with("tidy-process: killed 300 leftover processes:"),
                "{seen:?}"
            );
            assert!(lines.iter().all(|line| line.chars().count() <= 200), "{seen:?}");
            match leaks {
                "kill" => assert!(lines.len() == 1 && lines[0].ends_with(" more"), "{lines:?}"),
                _ => assert_eq!((lines.len(), lines[101]), (102, "tidy-process:   and 200 more")),
            }
        }
        stage.close(Alone::No);
    }
}

/// A file system of the victim's own mount namespace, frozen and thawed from outside.
struct Disk {
    image: PathBuf,
    dir: PathBuf,
    /// The namespace, once the victim is in it.
    space: Option<File>,
}

impl Disk {
    fn new() -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("tidy-locked-{}", std::process::id()));
        let image = dir.with_extension("ext4");
        std::fs::create_dir_all(&dir).unwrap();
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let this = Self { image, dir, space: None };
        this.call("mkfs.ext4", &["-q", this.image.to_str().unwrap()])?;
        Ok(this)
    }

    fn call(&self, program: &str, args: &[&str]) -> Result<(), String> {
        let failed = |why: String| format!("{program}: {why}");
        let output = StdCommand::new(program).args(args).output();
        let output = output.map_err(|error| failed(error.to_string()))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(failed(said)) }
    }

    fn freeze(&self, flag: &str) -> Result<(), String> {
        let Some(space) = &self.space else { return Ok(()) };
        let space = format!("--mount=/proc/{}/fd/{}", std::process::id(), space.as_raw_fd());
        self.call("nsenter", &[&space, "fsfreeze", flag, self.dir.to_str().unwrap()])
    }

    /// So many processes that cannot be looked at; the main one stays or ends.
    fn lock(&mut self, stage: &Stage, count: u32, stay: bool, keeper: bool) -> Child {
        let script = "mount -o loop \"$0\" \"$1\" && exec \"$2\"";
        let mut command = stage.command("unshare");
        command.args(["-m", "sh", "-c", script]).arg(&self.image).arg(&self.dir);
        command.arg(victim::exe()).env("TIDY_VICTIM", "memory-locked");
        command.env("TIDY_FILE", self.dir.join("file")).env("TIDY_COUNT", count.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).force_join(count == 2 && !keeper);
        if stay {
            command.env("TIDY_STAY", "1");
        }
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut said = child.stdout.take().unwrap();
        read_ready(&mut said);
        self.space = Some(File::open(format!("/proc/{}/ns/mnt", child.id())).unwrap());
        self.freeze("-f").unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        read_ready(&mut said);
        child
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.freeze("-u");
        self.space = None;
        let _ = std::fs::remove_dir(&self.dir);
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Acts in time, on a thread that may hang otherwise; the file system is thawed in any case.
fn in_time<T: Send + 'static>(disk: &Disk, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (said, heard) = std::sync::mpsc::channel();
    let start = Instant::now();
    std::thread::spawn(move || drop(said.send(act())));
    let answer = heard.recv_timeout(PATIENCE);
    if answer.is_err() {
        disk.freeze("-u").unwrap();
        panic!("it hung for {:?}", start.elapsed());
    }
    eprintln!("took {:?}", start.elapsed());
    answer.unwrap()
}

#[test]
#[serial]
fn a_process_that_cannot_be_looked_at_is_named_without_its_command_line() {
    for stage in [Stage::set(), Stage::of_keepers()] {
        let Some(stage) = stage else { return };
        let mut disk = match Disk::new() {
            Ok(disk) => disk,
            Err(why) => return skip(&why),
        };
        let child = disk.lock(&stage, 1, true, false);
        let child = in_time(&disk, move || {
            let all = child.tree().processes();
            assert_eq!(all.len(), 2, "{all:?}");
            let locked = all.iter().find(|process| process.pid != child.id()).unwrap();
            assert!(locked.command.is_empty() && !locked.name.is_empty(), "{locked:?}");
            assert_eq!(locked.ppid, child.id());
            assert!(locked.particulars().contains("reading it blocks"), "{locked:?}");
            // The one that can be looked at has its command line all the same.
            let main = all.iter().find(|process| process.pid == child.id()).unwrap();
            assert!(!main.command.is_empty() && main.gaps.is_empty(), "{main:?}");
            child
        });
        let child = in_time(&disk, move || {
            let deadline = Instant::now() + Duration::from_millis(100);
            let error = child.wait_ready(Ready::tcp(1), deadline).unwrap_err().to_string();
            assert!(error.contains("processes: ") && !error.contains('\n'), "{error}");
            child
        });
        #[cfg(feature = "cli")]
        if child.tree().path().is_some() {
            let seen = super::measured(stage.tool(&["ps"]));
            assert!(seen.took < PATIENCE && seen.stdout.lines().count() == 2, "{seen:?}");
        }
        disk.freeze("-u").unwrap();
        drop(child);
        drop(disk);
        stage.close(Alone::No);
    }
}

/// The kernel keeps it as long as the file system is frozen; all the others die in time.
#[test]
#[serial]
fn a_tree_whose_list_blocks_is_killed_in_time() {
    for (stage, keeper, count) in
        [(Stage::set(), false, 1), (Stage::set(), false, 2), (Stage::of_keepers(), true, 1)]
    {
        let Some(stage) = stage else { return };
        let mut disk = match Disk::new() {
            Ok(disk) => disk,
            Err(why) => return skip(&why),
        };
        let mut beside = stage.sh("echo ready; exec sleep 25");
        let child = disk.lock(&stage, count, false, keeper);
        let other = beside.stdout(Stdio::null()).spawn().unwrap();
        drop(beside);
        if !keeper {
            child.tree().add(other.id()).unwrap();
        }
        assert!(child.wait_timeout(SOON).unwrap().is_some());
        let finish = std::thread::spawn(move || child.finish());
        if !keeper {
            let killed = other.wait_timeout(PATIENCE / 2).unwrap();
            assert!(killed.is_some(), "the list has held up the kill");
        }
        // By then the kill has been tried.
        std::thread::sleep(Duration::from_secs(3));
        disk.freeze("-u").unwrap();
        let report = finish.join().unwrap().unwrap();
        let locked = |named: &&tidy_process::ProcessInfo| {
            named.gaps.iter().any(|gap| gap.reason.contains("blocks"))
        };
        let number = report.leftovers.iter().filter(locked).count();
        assert_eq!(number, count as usize, "{report:?}");
        drop(other);
        drop(disk);
        stage.close(Alone::No);
    }
}

#[test]
#[serial]
fn reads_that_were_left_behind_are_few_and_end() {
    let Some(stage) = Stage::set() else { return };
    let mut disk = match Disk::new() {
        Ok(disk) => disk,
        Err(why) => return skip(&why),
    };
    let child = disk.lock(&stage, 6, true, false);
    let child = in_time(&disk, move || {
        for _ in 0..4 {
            assert_eq!(child.tree().processes().len(), 7);
        }
        child
    });
    assert!((6..=24).contains(&readers()), "{} threads are left", readers());
    let (start, few) = (Instant::now(), readers());
    let all = child.tree().processes();
    assert!(all.len() == 7 && readers() == few, "{} threads", readers());
    assert!(start.elapsed() < Duration::from_millis(900), "took {:?}", start.elapsed());
    let reason = |process: &tidy_process::ProcessInfo| process.gaps[0].reason.clone();
    assert!(all.iter().all(|process| reason(process).contains("earlier reads")), "{all:?}");
    disk.freeze("-u").unwrap();
    assert!(until(SOON, || readers() == 0), "{} threads stay", readers());
    assert!(child.tree().processes().iter().any(|process| !process.command.is_empty()));
    drop(child);
    drop(disk);
    stage.close(Alone::No);
}

/// Threads of this process that look.
fn readers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("tidy-process-se")).count()
}
