//! A job array for Slurm.

use std::io;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use crate::exit::{Failure, open_failure};
use crate::pool::emit::asked::Asked;
use crate::pool::emit::script::{Lines, put, refusal};
use crate::pool::template::in_sh;
use crate::scratch::{Scratch, each_piece};

/// Tasks of one array: as many as Slurm allows if its administrator says nothing (MaxArraySize).
const TASKS: u64 = 1000;

/// How many commands there are stands at the script's begin, so they are put aside.
pub(crate) fn write(asked: &Asked, lines: Lines<'_>) -> Result<(), Failure> {
    let mut body = Scratch::open()?.file()?;
    let mut count = 0;
    let failure = |error: io::Error| open_failure("a temporary file".as_ref(), error);
    lines(&mut |line| {
        count += 1;
        let text = [format!("{count}) ").as_bytes(), &without_returns(line), b" ;;\n"].concat();
        body.write_all(&text).map_err(failure)
    })?;
    if count == 0 {
        let hint = "give FILE, or arguments behind CMD and :::";
        return Err(refusal(
            "there is no command, and an array has one task at least".into(),
            hint,
        ));
    }
    let length = body.metadata().map_err(failure)?.len();
    put(begin(asked, count).as_bytes())?;
    if count > TASKS {
        put(&several(asked, count))?;
    }
    put(b"command() {\ncase $1 in\n")?;
    let mut told = Ok(());
    each_piece(&body, (0, length), |piece| {
        told = put(piece);
        if told.is_ok() { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
    })
    .or_else(|error| std::mem::replace(&mut told, Ok(())).and(Err(failure(error))))?;
    put(b"*) echo \"there is no command $1\" >&2; exit 125 ;;\nesac\n}\n")?;
    put(end(count).as_bytes())
}

fn begin(asked: &Asked, count: u64) -> String {
    let last = count.min(TASKS);
    let most = asked.at_a_time.map_or(String::new(), |number| format!("%{number}"));
    format!(
        "#!/bin/sh\n\
         #SBATCH --array=1-{last}{most}\n\
         # For Slurm: sbatch [OPTIONS] SCRIPT, as in: sbatch --mem=1G --time=10 SCRIPT\n\
         # Without Slurm this runs one of its tasks: sh SCRIPT NUMBER\n\
         task=${{SLURM_ARRAY_TASK_ID:-${{1-}}}}\n\
         cr=$(printf '\\r')\n"
    )
}

/// sbatch refuses a script with lines of DOS. A carriage return is no plain character, so each
/// stands in single quotes.
fn without_returns(line: &[u8]) -> Vec<u8> {
    line.split(|&byte| byte == b'\r').collect::<Vec<_>>().join(&b"'\"$cr\"'"[..])
}

/// A task with several commands has a tree around them all, which ends with the task's shepherd.
fn several(asked: &Asked, count: u64) -> Vec<u8> {
    let mut text = format!(
        "# Of {count} commands each task runs every {TASKS}th.\n\
         case $task in\n\
         '' | *[!0-9]*) task=0 ;;\n\
         esac\n\
         if [ \"$task\" -lt 1 ] || [ \"$task\" -gt {TASKS} ]; then\n\
         echo \"there is no task $task, but 1 to {TASKS}\" >&2\n\
         exit 125\n\
         fi\n\
         if [ \"${{2-}}\" != held ]; then\n\
         exec tidy-process run --die-with-parent"
    )
    .into_bytes();
    for option in &asked.ground {
        text.push(b' ');
        text.extend(without_returns(&in_sh(option.as_bytes())));
    }
    text.extend_from_slice(b" -- /bin/sh \"$0\" \"$task\" held\nfi\n");
    text
}

fn end(count: u64) -> String {
    if count <= TASKS {
        return "command \"$task\"\n".to_owned();
    }
    format!(
        "status=0\n\
         while [ \"$task\" -le {count} ]; do\n\
         (command \"$task\") || status=1\n\
         task=$((task + {TASKS}))\n\
         done\n\
         exit $status\n"
    )
}
