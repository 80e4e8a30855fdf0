//! Completes words in bash, zsh and fish: a script for the shell, which asks this program.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::error::Result as ClapResult;
use clap::{Args, Command, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::env::{Bash, EnvCompleter, Fish, Shells, Zsh};

use crate::exit::Failure;
use crate::print::text::write;

/// The variable by which a shell's script asks. A name of its own: one that other programs use
/// (`COMPLETE`) may be set for their sake.
const VARIABLE: &str = "_TIDY_PROCESS_COMPLETE";

const NAME: &str = "tidy-process";

const SHELLS: Shells<'static> = Shells(&[&PlainBash, &Fish, &Zsh]);

/// The script for bash puts what it is offered into the line as it is (those of the others quote
/// it). A file's name may be a stranger's: what a shell obeys is not offered.
struct PlainBash;

impl EnvCompleter for PlainBash {
    fn name(&self) -> &'static str {
        Bash.name()
    }

    fn is(&self, name: &str) -> bool {
        Bash.is(name)
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        Bash.write_registration(var, name, bin, completer, buf)
    }

    fn write_complete(
        &self,
        command: &mut Command,
        args: Vec<OsString>,
        here: Option<&Path>,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        let mut all = Vec::new();
        Bash.write_complete(command, args, here, &mut all)?;
        let separator = env::var("_CLAP_IFS").unwrap_or_else(|_| "\n".to_owned());
        let all = String::from_utf8_lossy(&all);
        let plain: Vec<&str> = all.split(&*separator).filter(|word| is_harmless(word)).collect();
        buf.write_all(plain.join(&separator).as_bytes())
    }
}

fn is_harmless(word: &str) -> bool {
    word.chars().all(|c| c.is_alphanumeric() || "._-+@%,/=:".contains(c))
}

/// As a file in zsh's `fpath` the script is run at the first completion, which it is to answer.
const AUTOLOADED: &[u8] = b"\
if [ \"${funcstack[1]}\" = _tidy-process ]; then
    _clap_dynamic_completer_tidy_process \"$@\"
fi
";

const HOW: &str = "\
For good, and all users (the packages of shells look there):
  tidy-process completions bash >/usr/share/bash-completion/completions/tidy-process
  tidy-process completions zsh >/usr/share/zsh/vendor-completions/_tidy-process
  tidy-process completions fish >/usr/share/fish/vendor_completions.d/tidy-process.fish
For this shell:
  source <(tidy-process completions bash)     (zsh: after compinit)
  tidy-process completions fish | source";

#[derive(Debug, Args)]
#[command(after_help = HOW)]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script. It calls the program by the name that this one was called by.
pub(crate) fn print_script(args: &CompletionsArgs, argv: &[OsString]) -> Result<(), Failure> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let called = argv.first().map(|program| program.to_string_lossy().into_owned());
    let program = match called {
        Some(path) if path.contains('/') => {
            env::current_exe().map_or(path, |path| path.to_string_lossy().into_owned())
        }
        _ => NAME.to_owned(),
    };
    let mut script = Vec::new();
    let written = shell.write_registration(VARIABLE, NAME, NAME, &program, &mut script);
    written.map_err(Failure::Print)?;
    if matches!(args.shell, Shell::Zsh) {
        script.extend_from_slice(AUTOLOADED);
    }
    write(&String::from_utf8_lossy(&script))
}

/// Answers a shell's script, if one asks.
pub(crate) fn complete(argv: &[OsString], command: fn() -> Command) -> Option<Result<(), Failure>> {
    env::var_os(VARIABLE)?;
    let here = env::current_dir().ok();
    let asked = CompleteEnv::with_factory(command).var(VARIABLE).shells(SHELLS);
    let completed: ClapResult<bool> = asked.try_complete(argv, here.as_deref());
    match completed {
        Ok(false) => None,
        Ok(true) => Some(Ok(())),
        Err(error) => Some(Err(Failure::Complete(error.to_string()))),
    }
}
