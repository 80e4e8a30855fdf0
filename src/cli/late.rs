//! Arguments that are described to the parser only once their subcommand is asked for.

use clap::{ArgMatches, Args, Command, FromArgMatches};

/// A `run` that takes a millisecond or two shall not describe what belongs to all the others.
#[derive(Debug)]
pub(crate) struct Late<T>(pub(crate) T);

impl<T: Args> Args for Late<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(T::augment_args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(T::augment_args_for_update)
    }
}

impl<T: FromArgMatches> FromArgMatches for Late<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}
