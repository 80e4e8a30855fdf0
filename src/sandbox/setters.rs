//! The settings of the level with a view of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::confinement::Level;
use crate::sandbox::Sandbox;
use crate::sandbox::request::Request;
use crate::sandbox::view::{Access, Network};

/// What it shows, and the rest of the level [`Level::Sandbox`]. At another level it is an error of
/// the spawn, and of the plan.
impl Sandbox {
    /// The level [`Level::Sandbox`]: the command sees nothing but what is named, beside a private
    /// `/tmp` and `/dev/shm`, a few devices, and its own processes in `/proc`.
    ///
    /// Everything private is gone with the command. It runs in its working directory, so that has
    /// to be in the view ([`Command::current_dir`](crate::Command::current_dir)).
    ///
    /// Of the environment stay `PATH`, `TERM`, `COLORTERM`, `NO_COLOR`, `LANG`, `LC_*`, `TZ`, what
    /// [`keep_env`](Self::keep_env) names and what the command sets; `HOME` is `/tmp` otherwise.
    ///
    /// It runs as the caller's own user; root's commands run as
    /// [`Command::uid`](crate::Command::uid) says, or else as a user that owns nothing, and may do
    /// what the modes of files let that one do.
    /// An ordinary user's supplementary groups stay, and what they open: Linux does not let them be
    /// given up. Root's go.
    ///
    /// # Examples
    /// ```
    /// use tidy_process::{Command, Sandbox};
    ///
    /// let sandbox = Sandbox::new().system();
    /// let mut command = Command::new("ls");
    /// match command.arg("/").current_dir("/").sandbox(&sandbox).output() {
    ///     Ok(output) => assert!(!String::from_utf8_lossy(&output.stdout).contains("home")),
    ///     Err(error) => assert!(error.is_unconfinable() || error.is_unsupported(), "{error}"),
    /// }
    /// ```
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default should not be chosen by accident")]
    pub fn new() -> Self {
        Self::of(Request::new(Level::Sandbox))
    }

    /// Shows `/usr`, the links to it (`/bin`, `/lib` and so on) and `/etc`, to be read.
    #[must_use]
    pub fn system(self) -> Self {
        self.seen("system", |request| request.view.system = true)
    }

    /// Shows a file or directory of the host's, with what is mounted below it, to be read. It is at
    /// the same path inside.
    ///
    /// A path is absolute and leads through no symbolic link: one that does fails the spawn, so
    /// that no earlier command can turn it elsewhere. Where it lies below another one that is
    /// named, its place has to be there; nothing is made in a directory of the host's.
    #[must_use]
    pub fn read_only(self, path: impl AsRef<Path>) -> Self {
        self.access("read_only (--read)", path.as_ref(), Access::ReadOnly)
    }

    /// Shows it to be read and written.
    #[must_use]
    pub fn read_write(self, path: impl AsRef<Path>) -> Self {
        self.access("read_write (--write)", path.as_ref(), Access::ReadWrite)
    }

    /// Covers what is at this path, below one that is shown, with nothing.
    #[must_use]
    pub fn hide(self, path: impl AsRef<Path>) -> Self {
        self.access("hide", path.as_ref(), Access::Hidden)
    }

    /// Shows a directory that the command may change as it likes, and leaves it as it is: what is
    /// written below it goes to a layer in memory, for each run one of its own.
    /// [`Report::changes`](crate::Report::changes) lists that, commits or drops it.
    ///
    /// Files of its owner can be changed, others be replaced. For a command of root's the owner's
    /// files are the command's own, so it reads all of those too. Nothing may be mounted below it;
    /// paths below it may be named besides. At the most 16. It needs overlayfs in the kernel, and
    /// for root a file system that knows id-mapped mounts.
    #[must_use]
    pub fn overlay(self, dir: impl AsRef<Path>) -> Self {
        self.access("overlay", dir.as_ref(), Access::Overlay)
    }

    /// Puts an empty directory at this path, in memory, that the command may write to.
    #[must_use]
    pub fn private(self, path: impl AsRef<Path>) -> Self {
        self.access("private (--tmpfs)", path.as_ref(), Access::Private)
    }

    /// Sets its network. Default: [`Network::None`].
    #[must_use]
    pub fn network(self, network: Network) -> Self {
        self.seen("network (--net)", |request| request.view.network = network)
    }

    /// Keeps these variables of the caller's environment.
    #[must_use]
    pub fn keep_env<K: AsRef<OsStr>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        let keys: Vec<_> = keys.into_iter().map(|key| key.as_ref().to_owned()).collect();
        // None at all is no wish.
        if keys.is_empty() { self } else { self.seen("keep_env", |to| to.kept.extend(keys)) }
    }

    /// Explains what the command is denied for want of what this sandbox names: a profile comes of
    /// it.
    #[doc(hidden)]
    #[must_use]
    pub fn learn_for(self, narrow: &Self) -> Self {
        let narrow = narrow.shared.request.view.clone();
        self.explain().with(|request| request.narrow = Some(narrow))
    }

    /// Makes one step of the set-up fail; for tests of what is left then.
    #[doc(hidden)]
    #[must_use]
    pub fn fail_at(self, step: usize) -> Self {
        self.with(|request| request.fail = step)
    }

    /// As [`fail_at`](Self::fail_at), but only once commands enter what an earlier one has made.
    #[doc(hidden)]
    #[must_use]
    pub fn fail_in_template(self, step: usize) -> Self {
        self.fail_at(step).with(|request| request.fails_in_template = true)
    }

    fn access(self, setting: &'static str, path: &Path, access: Access) -> Self {
        // One name for one path: without doubled or trailing slashes.
        let path: PathBuf = path.components().collect();
        self.seen(setting, |request| {
            request.view.paths.insert(path, access);
        })
    }

    /// Takes a setting that only a view of its own can have.
    fn seen(self, setting: &'static str, change: impl FnOnce(&mut Request)) -> Self {
        self.with(|request| {
            request.of_a_view = Some(setting);
            change(request);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_takes_no_setting_of_a_view() {
        let fence = Sandbox::fence;
        for (sandbox, setting) in [
            (fence().system(), "system"),
            (fence().read_only("/x"), "read_only (--read)"),
            (fence().read_write("/x"), "read_write (--write)"),
            (fence().hide("/x"), "hide"),
            (fence().private("/x"), "private (--tmpfs)"),
            (fence().overlay("/x"), "overlay"),
            (fence().network(Network::None), "network (--net)"),
            (fence().keep_env(["K"]), "keep_env"),
        ] {
            for error in [sandbox.plan().err(), sandbox.prepare().err()] {
                let text = error.filter(|error| error.is_invalid_input()).map(|e| e.to_string());
                let text = text.unwrap_or_default();
                assert!(text.contains(&format!("{setting} in a fence: only")), "{text}");
            }
        }
        let unasked = fence().keep_env::<&str>([]).plan();
        assert!(unasked.is_ok() || unasked.is_err_and(|error| error.is_unconfinable()));
    }
}
