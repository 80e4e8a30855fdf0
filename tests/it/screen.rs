//! A terminal emulator, tmux, with a program in it: what is typed there, and what is seen.

use std::fs;
use std::path::PathBuf;
use std::process::Command as StdCommand;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::support::{SOON, Stage, tool, until};

/// Its own server, with a socket of its own: a person's tmux is not touched.
pub(crate) struct Screen {
    dir: PathBuf,
    server: i32,
}

/// Whether this program is here; if not the test fails, and says which package has it.
#[track_caller]
pub(crate) fn has(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    if !there {
        crate::support::skip(&format!("{program} is missing: apt-get install {package}"));
    }
    there
}

impl Screen {
    /// So many columns and rows, and a program with its arguments. `T` is the tool there, and
    /// `HERE` a directory that goes with the screen.
    pub(crate) fn open(stage: &Stage, size: (u16, u16), program: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !has("tmux", "tmux") {
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidy-screen-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let mut screen = Self { dir, server: 0 };
        let (columns, rows) = (size.0.to_string(), size.1.to_string());
        let mut command = screen.command(&["new-session", "-d", "-x", &columns, "-y", &rows]);
        stage.mark_std(&mut command);
        command.env("T", tool()).env("PS1", "prompt> ").env_remove("NO_COLOR");
        command.env("HERE", &screen.dir);
        let started = command.args(program).output().unwrap();
        assert!(started.status.success(), "{started:?}");
        screen.server = screen.tmux(&["display", "-p", "#{pid}"]).trim().parse().unwrap();
        Some(screen)
    }

    /// A shell without files of its own, and its prompt.
    pub(crate) fn shell(stage: &Stage, size: (u16, u16)) -> Option<Self> {
        let screen = Self::open(stage, size, &["bash", "--norc", "--noprofile"])?;
        screen.shows("prompt>");
        Some(screen)
    }

    fn command(&self, args: &[&str]) -> StdCommand {
        let mut command = StdCommand::new("tmux");
        command.arg("-f").arg("/dev/null").arg("-S").arg(self.dir.join("socket")).args(args);
        command
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Types characters as they are.
    pub(crate) fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
    }

    /// Presses keys, by tmux's names for them: `Enter`, `Down`, `C-c`.
    pub(crate) fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a line.
    pub(crate) fn enters(&self, line: &str) {
        self.types(line);
        self.press(&["Enter"]);
    }

    pub(crate) fn resize(&self, (columns, rows): (u16, u16)) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// What is seen.
    pub(crate) fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// All rows, those that have left the screen too.
    pub(crate) fn ask_all(&self) -> Vec<String> {
        let text = self.tmux(&["capture-pane", "-p", "-S", "-"]);
        text.lines().map(|row| row.trim_end().to_owned()).collect()
    }

    /// The same with the escape sequences for colours.
    pub(crate) fn colours(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// What tmux says of the pane: `#{cursor_y}`, `#{alternate_on}`, `#{scroll_region_lower}`.
    pub(crate) fn ask(&self, format: &str) -> String {
        self.tmux(&["display", "-p", format]).trim_end().to_owned()
    }

    /// Waits until this is seen.
    #[track_caller]
    pub(crate) fn shows(&self, wanted: &str) {
        self.becomes(wanted, |text| text.contains(wanted));
    }

    /// Waits until a whole row is this.
    #[track_caller]
    pub(crate) fn says(&self, wanted: &str) {
        self.becomes(wanted, |text| has_row(text, wanted));
    }

    /// Waits until this is seen no more.
    #[track_caller]
    pub(crate) fn hides(&self, unwanted: &str) {
        self.becomes(&format!("no {unwanted}"), |text| !text.contains(unwanted));
    }

    #[track_caller]
    pub(crate) fn becomes(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) {
        let shown = until(SOON, || is_so(&self.text()));
        assert!(shown, "never: {what}\n{}", self.text());
    }

    /// Ends all in it.
    pub(crate) fn close(self) {
        self.end();
        std::mem::forget(self);
    }

    fn end(&self) {
        let _ = self.command(&["kill-server"]).output();
        // Not our child: nothing but the pid tells.
        until(SOON, || kill(Pid::from_raw(self.server), None).is_err());
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether one of the rows is this.
pub(crate) fn has_row(text: &str, wanted: &str) -> bool {
    text.lines().any(|row| row.trim_end() == wanted)
}
