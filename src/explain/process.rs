//! Reads what a waiting call is about: strings in memory, the directories that paths start in.
//! Everything is bounded, and the thread that waits may be killed meanwhile.

use std::fs;
use std::io::{IoSliceMut, Read};
use std::path::PathBuf;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// Bytes that a path may have, as the kernel has it.
const LONGEST: usize = 4096;
const PAGE: usize = 4096;

/// A call that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) id: u64,
    /// Of the thread, as this process sees it; 0 if it does not.
    pub(super) thread: u32,
    pub(super) number: u32,
    pub(super) arguments: [u64; 6],
}

/// A thread that waits in a call.
pub(super) struct Process(u32);

impl Process {
    pub(super) fn of(thread: u32) -> Self {
        Self(thread)
    }

    /// Bytes of its memory, up to the end of the page that they begin in, at the most.
    fn chunk(&self, at: usize, most: usize) -> Option<Vec<u8>> {
        let pid = Pid::from_raw(i32::try_from(self.0).ok().filter(|&pid| pid > 0)?);
        let len = most.min(PAGE - at % PAGE);
        let mut buffer = vec![0; len];
        let place = RemoteIoVec { base: at, len };
        let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut buffer)], &[place]).ok()?;
        buffer.truncate(read);
        Some(buffer)
    }

    /// So many bytes.
    pub(super) fn bytes(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut at = usize::try_from(at).ok()?;
        let mut all = Vec::new();
        while all.len() < len {
            let chunk = self.chunk(at, len - all.len())?;
            at = at.checked_add(chunk.len()).filter(|_| !chunk.is_empty())?;
            all.extend(chunk);
        }
        Some(all)
    }

    /// A string that ends in NUL.
    pub(super) fn text(&self, at: u64) -> Option<Vec<u8>> {
        let mut at = usize::try_from(at).ok()?;
        let mut all = Vec::new();
        while all.len() < LONGEST {
            // Most paths are short.
            let chunk = self.chunk(at, 256)?;
            at = at.checked_add(chunk.len()).filter(|_| !chunk.is_empty())?;
            let end = chunk.iter().position(|&byte| byte == 0);
            all.extend(chunk.get(..end.unwrap_or(chunk.len()))?);
            if end.is_some() {
                return Some(all);
            }
        }
        None
    }

    /// Where a relative path starts. The fd is an `int`, whatever the high half of the argument is.
    pub(super) fn directory(&self, fd: i32) -> Option<PathBuf> {
        let link = match fd {
            libc::AT_FDCWD => format!("/proc/{}/cwd", self.0),
            fd => format!("/proc/{}/fd/{fd}", self.0),
        };
        fs::read_link(link).ok().filter(|dir| dir.is_absolute())
    }

    pub(super) fn program(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/exe", self.0)).ok().filter(|file| file.is_absolute())
    }

    /// Its name and the pid of its process.
    pub(super) fn name(&self) -> (String, u32) {
        let mut status = Vec::new();
        let file = fs::File::open(format!("/proc/{}/status", self.0));
        let _ = file.and_then(|file| file.take(1024).read_to_end(&mut status));
        let status = String::from_utf8_lossy(&status);
        let field = |key| status.lines().find_map(|line: &str| line.strip_prefix(key));
        let pid = field("Tgid:").and_then(|pid| pid.trim().parse().ok()).unwrap_or(self.0);
        (field("Name:").map_or("?", str::trim).to_owned(), pid)
    }
}
