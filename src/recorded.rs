//! Where a command and a recording meet.

use crate::child::Child;
use crate::command::Command;
use crate::error::Result;
use crate::record::Recording;
use crate::record::handle::{Opening, Pending};
use crate::record::timeline::LaneLimits;

impl Command {
    /// Records what becomes of the command; a recording may be given to several.
    ///
    /// The threads of the recording look; nothing waits for them. Their fds: four while a recorded
    /// command runs.
    pub fn record(&mut self, recording: &Recording) -> &mut Self {
        self.recording = Some(recording.clone());
        self
    }

    /// Whether what becomes of it is kept, which takes a tree.
    pub(crate) fn keeps(&self) -> bool {
        self.log.is_some() || self.recording.is_some()
    }

    /// Prepares the recording for a spawn, if there is one.
    pub(crate) fn pending(&self) -> Result<Option<Pending>> {
        self.recording.as_ref().map_or(Ok(None), Recording::prepare)
    }

    /// Opens the lane of a child that has just been spawned.
    pub(crate) fn record_child(&self, pending: Option<Pending>, child: &mut Child) {
        let Some(pending) = pending else { return };
        let words = [self.get_program()].into_iter().chain(self.get_args()).take(64);
        let command = words.map(|word| word.to_string_lossy().chars().take(256).collect());
        let policy = child.policy();
        let (holder, init) = child.tree().container().looked_at();
        child.recorded = pending.open(Opening {
            name: self.name.as_ref().map(|name| name.to_string_lossy().into_owned()),
            pid: child.id().cast_signed(),
            command: command.collect(),
            age: child.spawned().elapsed(),
            holder,
            init,
            limits: LaneLimits {
                cpu_time: policy.cpu_time,
                timeout: policy.timeout,
                ..LaneLimits::default()
            },
        });
    }
}
