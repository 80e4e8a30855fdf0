//! The recipes of `examples/recipes`, with the real servers: each ended in every way, and started
//! again at once on the same port.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serial_test::parallel;

use crate::server::free_port;
use crate::support::{Alone, SOON, Stage, read_ready, skip};

struct Place {
    stage: Stage,
    recipe: &'static str,
    port: u16,
    dir: PathBuf,
}

impl Place {
    /// None, loudly, where the program is missing; ci/test installs them all.
    fn find(recipe: &'static str, program: &str) -> Option<Self> {
        if !is_there(program) {
            skip(&format!("{program} is missing, for the recipe {recipe}; ci/test installs it"));
            return None;
        }
        let (stage, port) = (Stage::set()?, free_port());
        let dir = std::env::temp_dir().join(format!("tidy-recipe-{}-{recipe}", std::process::id()));
        Some(Self { stage, recipe, port, dir })
    }

    fn command(&self, end: &str) -> Command {
        let mut command = Command::new(example());
        command.args([self.recipe, &self.port.to_string()]).arg(&self.dir).arg(end);
        self.stage.mark_std(&mut command);
        if let Some(python) = std::env::var_os("TIDY_FLASK_PYTHON") {
            command.env("TIDY_PYTHON", python);
        }
        command
    }

    fn ends(&self, end: &str, code: i32) {
        let output = self.command(end).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = said + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{} {end}: {said}", self.recipe);
        assert!(said.contains("answered "), "{said}");
        self.assert_free(end);
    }

    /// SIGKILL for the supervisor: the guard has a second.
    fn killed(&self) {
        let mut supervisor = self.command("stay").stdout(Stdio::piped()).spawn().unwrap();
        read_ready(supervisor.stdout.take().unwrap());
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        self.wait_for_guard(Duration::from_secs(1));
        self.assert_free("killed");
    }

    /// Only the directory's going says that a guard is done, and nothing announces that.
    fn wait_for_guard(&self, time: Duration) {
        let start = Instant::now();
        while self.stage.cgroups() > 0 {
            assert!(start.elapsed() < time, "{}: {:?}", self.recipe, self.stage.alive());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn assert_free(&self, end: &str) {
        let alive = self.stage.alive();
        assert!(alive.is_empty(), "{} {end}: still alive: {alive:?}", self.recipe);
        TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).unwrap();
    }
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    Path::new(program).exists() || found.unwrap().status.success()
}

fn example() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let path = this.parent().and_then(Path::parent).unwrap().join("examples/recipes");
    assert!(path.exists(), "{path:?} is missing: run cargo build --example recipes");
    path
}

/// By finish, by a panic and by SIGKILL of the supervisor, each twice, always on one port.
fn again_and_again(recipe: &'static str, program: &str) {
    let Some(place) = Place::find(recipe, program) else { return };
    for _ in 0..2 {
        place.ends("finish", 0);
        place.ends("panic", 101);
        place.killed();
    }
    // A panic leaves the run root of the process-wide supervisor to its guard.
    place.wait_for_guard(SOON);
    fs::remove_dir_all(&place.dir).unwrap();
    place.stage.close(Alone::No);
}

/// A program of the virtual environment that ci/test makes.
fn of_venv(program: &str) -> String {
    let python = std::env::var("TIDY_FLASK_PYTHON").unwrap_or_default();
    Path::new(&python).with_file_name(program).display().to_string()
}

/// Another user's directory, one that others may write to and a symbolic link are refused before
/// anything is written.
#[test]
#[parallel]
fn a_directory_that_others_may_change_is_refused() {
    let Some(stage) = Stage::set() else { return };
    let dir = std::env::temp_dir().join(format!("tidy-recipe-{}-modes", std::process::id()));
    let (open, link) = (dir.join("open"), dir.join("link"));
    fs::create_dir_all(dir.join("precious")).unwrap();
    fs::write(dir.join("precious/log"), "mine").unwrap();
    symlink(dir.join("precious"), &link).unwrap();
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    for wrong in [&open, &link] {
        let mut command = Command::new(example());
        stage.mark_std(command.args(["redis", &free_port().to_string()]).arg(wrong));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot use directory"), "{said}");
    }
    assert_eq!(fs::read_to_string(dir.join("precious/log")).unwrap(), "mine");
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
    fs::remove_dir_all(&dir).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn flask_with_its_reloader_goes() {
    again_and_again("flask", &of_venv("flask"));
}

#[test]
#[parallel]
fn gunicorn_with_its_workers_goes() {
    again_and_again("gunicorn", &of_venv("gunicorn"));
}

#[test]
#[parallel]
fn a_node_server_behind_npm_goes() {
    again_and_again("npm", "npm");
}

#[test]
#[parallel]
fn postgresql_started_by_pg_ctl_goes() {
    again_and_again("postgres", "psql");
}

#[test]
#[parallel]
fn redis_as_a_daemon_goes() {
    again_and_again("redis", "redis-server");
}

#[test]
#[parallel]
fn headless_chromium_goes() {
    again_and_again("chromium", "chromium");
}
