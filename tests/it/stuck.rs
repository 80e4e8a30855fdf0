//! A process that the kernel does not let go of: teardown says so at its deadline, and others clean
//! up later.

use std::fs;
use std::path::PathBuf;
use std::process::Command as StdCommand;
use std::time::{Duration, Instant};

use serial_test::serial;
use tidy_process::{Stdio, Supervisor, sweep};

use crate::support::{Alone, SOON, Stage, read_ready, skip};

/// A small ext4 file system on a loop device; frozen, whoever writes to it waits in state D.
struct Frozen {
    image: PathBuf,
    dir: PathBuf,
}

fn call(program: &str, args: &[&str]) -> Result<(), String> {
    let output =
        StdCommand::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {said}")) }
}

impl Frozen {
    fn mount() -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("tidy-stuck-{}", std::process::id()));
        let image = dir.with_extension("ext4");
        fs::create_dir_all(&dir).unwrap();
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let this = Self { image, dir };
        call("mkfs.ext4", &["-q", this.image.to_str().unwrap()])?;
        call("mount", &["-o", "loop", this.image.to_str().unwrap(), this.dir.to_str().unwrap()])?;
        Ok(this)
    }

    fn freeze(&self, frozen: bool) -> Result<(), String> {
        call("fsfreeze", &[if frozen { "-f" } else { "-u" }, self.dir.to_str().unwrap()])
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.freeze(false);
        let _ = call("umount", &[self.dir.to_str().unwrap()]);
        let _ = fs::remove_dir(&self.dir);
        let _ = fs::remove_file(&self.image);
    }
}

#[test]
#[serial]
fn a_process_in_state_d_is_named_at_the_deadline_and_removed_once_it_goes() {
    let Some(stage) = Stage::set() else { return };
    let disk = match Frozen::mount() {
        Ok(disk) => disk,
        Err(error) => return skip(&error),
    };
    // One ends by its guard's patience, one by sweep.
    for guarded in [true, false] {
        let base = stage.supervisor.path().unwrap();
        let supervisor = Supervisor::builder().base(base).guard(guarded).build().unwrap();
        let script = format!("echo ready; read go; echo x > {}/file", disk.dir.display());
        let mut command = stage.sh(&script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).supervisor(&supervisor);
        let mut child = command.spawn().unwrap();
        drop(command);
        read_ready(child.stdout.take().unwrap());
        disk.freeze(true).unwrap();
        drop(child.stdin.take());
        let start = Instant::now();
        while child.tree().processes().iter().all(|process| process.state != 'D') {
            assert!(start.elapsed() < SOON, "never got stuck: {:?}", child.tree().processes());
            // Nothing announces that a process has come to wait.
            std::thread::sleep(Duration::from_millis(1));
        }
        let (pid, start) = (child.id(), Instant::now());
        let error = child.finish().unwrap_err();
        assert!((5..40).contains(&start.elapsed().as_secs()), "took {:?}", start.elapsed());
        assert!(error.is_survivors());
        assert_eq!(error.survivors()[0].pid, pid);
        let text = error.to_string();
        assert!(text.contains(&format!("{pid} sh (state D, wchan ")), "{text}");
        let root = supervisor.path().unwrap().to_owned();
        drop((child, supervisor));
        assert!(root.exists(), "the process is still there");
        disk.freeze(false).unwrap();
        let start = Instant::now();
        while root.exists() {
            assert!(start.elapsed() < SOON, "nobody removed {root:?}");
            if !guarded {
                sweep(Some(base), false).unwrap();
            }
            // The guard looks once a second by now.
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid.cast_signed()), None);
    }
    drop(disk);
    stage.close(Alone::No);
}
