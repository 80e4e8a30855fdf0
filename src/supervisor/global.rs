//! The supervisor that is used unless another one is named, and what a fork does to it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result, Step};
use crate::supervisor::{Supervisor, SupervisorBuilder};

static GLOBAL: Mutex<Option<Supervisor>> = Mutex::new(None);

fn global() -> MutexGuard<'static, Option<Supervisor>> {
    GLOBAL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervisor {
    /// The supervisor that [`Command`](crate::Command) and [`Tree`](crate::Tree) use unless told
    /// otherwise; made at its first use with the default settings, unless
    /// [`set_global`](Self::set_global) has made it.
    ///
    /// # Errors
    /// As for [`SupervisorBuilder::build`]. A failure is not remembered: the next call tries again.
    /// After [`close`](Self::close) it is still the global one, and spawns are errors.
    pub fn global() -> Result<Self> {
        let mut global = global();
        match &*global {
            Some(made) if made.is_ours() => Ok(made.clone()),
            // None yet, or a forked copy of this process holds its parent's.
            _ => Ok(global.insert(Self::builder().build()?).clone()),
        }
    }

    /// Makes the [global](Self::global) supervisor, with these settings.
    ///
    /// # Errors
    /// It was made before, and not closed since; or as for [`SupervisorBuilder::build`].
    pub fn set_global(builder: SupervisorBuilder) -> Result<Self> {
        let mut global = global();
        let made = global.as_ref().filter(|made| made.is_ours());
        if made.is_some_and(|made| !made.is_closed()) {
            let why = "it was made before: set it before the first spawn";
            return Err(Error::invalid(Step::Prepare, "the global supervisor", why));
        }
        Ok(global.insert(builder.build()?).clone())
    }

    /// Forgets the [global](Self::global) supervisor in a forked copy of the process that made it:
    /// closes the copy's fds, the lease and the line to the guard among them, and kills nothing.
    /// For handlers of pthread_atfork(3) and the like; the next spawn would do the same. Does
    /// nothing in the process that made it, nor where another thread was using it at the fork.
    pub fn after_fork() {
        if let Ok(mut global) = GLOBAL.try_lock() {
            global.take_if(|made| !made.is_ours());
        }
    }
}
