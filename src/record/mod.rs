//! Records what becomes of commands over time: their processes, what they use, what happens.
//!
//! Two threads look, while a lane is open: one takes samples, one hears what the kernel tells of
//! processes (see `sys/proc_events.rs`) and reads command lines. Neither holds a tree, nor is
//! waited for by what kills. What is made of a recording (a page, a picture) is not here.

mod ending;
mod lane;
mod origin;
mod past;
mod samples;
mod sampler;
mod state;
pub(crate) mod timeline;
mod witness;
pub(crate) mod handle;

use std::fmt;
use std::sync::Arc;

use crate::record::lane::LaneState;
use crate::record::state::Inner;
use crate::record::timeline::Timeline;

/// Records what becomes of the commands that it is given to
/// ([`Command::record`](crate::Command::record)): each spawn is a [`Lane`](crate::Lane) of its
/// [`Timeline`].
///
/// It is a handle, whose clones share what is recorded. Two threads look while a recorded command
/// runs, and take less than a hundredth of a CPU: a large tree is looked at less often. Memory is
/// bounded: of a long run the rows become fewer, of many processes the most important 2,000 are
/// kept and the others counted by their names.
///
/// Where the kernel tells of every fork, exec and exit (root in the initial namespaces; from Linux
/// 6.6 on ordinary users too), no process is too short-lived to be seen. Elsewhere
/// [`Lane::births`](crate::Lane::births) says [`Births::Sampled`](crate::Births::Sampled).
///
/// # Cleanup
/// A lane ends with its [`Child`](crate::Child): when that is finished, dropped or detached. The
/// threads end with the last lane. A fork of this process records nothing.
///
/// # Examples
/// ```
/// use tidy_process::{Command, Recording};
///
/// let recording = Recording::new();
/// Command::new("sh").args(["-c", "sleep 0.1; sleep 30 &"]).record(&recording).run()?;
/// let lane = &recording.timeline().lanes[0];
/// assert!(lane.processes.iter().any(|process| process.left)); // sleep 30, killed
/// # Ok::<(), tidy_process::Error>(())
/// ```
#[derive(Clone)]
pub struct Recording(Arc<Inner>);

impl Recording {
    /// A recording of nothing yet. Its axis of time begins now.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner::new()))
    }

    /// What was recorded up to now.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        let (began, wall) = (self.0.wall, self.0.now());
        if !self.0.is_ours() {
            return Timeline { began, wall, lanes: Vec::new(), lane_count: 0 };
        }
        let state = self.0.lock();
        let lanes: Vec<_> = state.lanes.iter().map(LaneState::snapshot).collect();
        let ended = lanes.iter().map(|lane| lane.ended).max().flatten();
        let wall = ended.filter(|_| state.running.is_empty()).unwrap_or(wall);
        Timeline { began, wall, lanes, lane_count: state.lane_count }
    }
}

impl Default for Recording {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").finish_non_exhaustive()
    }
}
