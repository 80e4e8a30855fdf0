//! One capability, as `doctor` reports it.

use serde_json::{Map, Value};
use tidy_process::Error;
use tidy_process::cli_support::hint;

use crate::exit::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The capability was tried, and worked.
    Ok,
    /// The capability is missing.
    No,
    /// For information, or it could not be tried.
    Blank,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::No => "no",
            Self::Blank => "-",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    pub(crate) found: String,
    /// What closes the gap.
    pub(crate) remedy: Option<String>,
    /// What is missing, without what it is for: equal ones of several are told in one row.
    pub(crate) gap: Option<String>,
    /// More fields of the JSON.
    facts: Map<String, Value>,
}

impl Finding {
    pub(crate) fn new(name: &'static str, state: State, found: impl Into<String>) -> Self {
        Self { name, state, found: found.into(), remedy: None, gap: None, facts: Map::new() }
    }

    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, State::Ok, found)
    }

    pub(crate) fn no(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, State::No, found)
    }

    pub(crate) fn blank(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, State::Blank, found)
    }

    /// A missing capability: the library's error, and its hint.
    pub(crate) fn error(name: &'static str, error: &Error) -> Self {
        let finding = Self::no(name, error.to_string());
        hint(error).into_iter().fold(finding, Self::remedy)
    }

    /// A missing capability: the error that `run` would print, and its hint.
    pub(crate) fn failure(name: &'static str, failure: &Failure) -> Self {
        let finding = Self::no(name, failure.to_string());
        failure.hint().into_iter().fold(finding, Self::remedy)
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// What is missing, in words that fit others too.
    pub(crate) fn lacking(mut self, gap: String) -> Self {
        self.gap = Some(gap);
        self
    }

    /// What was found may be found of others too.
    pub(crate) fn alike(mut self) -> Self {
        let found = self.found.clone();
        self.gap = self.gap.or(Some(found)).filter(|_| self.state != State::Ok);
        self
    }

    /// Adds to what was found.
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.found += more;
        self
    }

    pub(crate) fn fact(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.state == State::Ok
    }

    /// Makes the JSON: `state`, `found`, `remedy` where the capability is missing, and its own
    /// fields.
    pub(crate) fn json(&self) -> Value {
        let mut all = self.facts.clone();
        all.insert("state".to_owned(), self.state.word().into());
        all.insert("found".to_owned(), self.found.clone().into());
        if let Some(remedy) = &self.remedy {
            all.insert("remedy".to_owned(), remedy.clone().into());
        }
        Value::Object(all)
    }
}
