//! `top`: the trees that there are, live, with keys to act on them.

mod act;
mod draw;
mod keys;
mod live;
mod model;
mod sample;
mod screen;

use std::io::{IsTerminal, stdin, stdout};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use nix::unistd::geteuid;
use tidy_process::cli_support::Lookout;

use crate::exit::{Ended, Failure};
use crate::place::scope::everywhere;
use crate::print::text::{failed, print};
use crate::top::live::Live;
use crate::top::model::{Model, Order};
use crate::top::sample::Sampler;
use crate::top::screen::is_dumb;
use crate::values::duration;

/// The time between the two looks of a snapshot: CPU now is what was used between them.
const BETWEEN: Duration = Duration::from_millis(200);

const KEYS: &str = "\
Keys:
  arrows, PgUp, PgDn, Home, End   choose a tree; Enter unfolds it to its processes
  s stop, k kill, f freeze, t thaw it; each asks first
  o, O order by the next column, or the one before; r the other way round
  / filter by name, owner, state or port; Esc shows all
  q quit, ? help, Ctrl-L draw anew, Ctrl-Z suspend

CPU% is of one CPU, since the look before. A look costs less than 1 % of a CPU: with many trees
what is not on the screen is looked at less often. Without a terminal one snapshot is printed.";

#[derive(Debug, Args)]
#[command(after_help = KEYS)]
pub(crate) struct TopArgs {
    /// Show other users' trees too (as root)
    #[arg(long)]
    all_users: bool,

    /// Order the trees by this column
    #[arg(long, value_name = "COLUMN", value_enum, default_value_t = Order::Start)]
    order: Order,

    /// Time between stop signal and kill, for a tree that is stopped with "s"
    #[arg(short, long, value_name = "DUR", value_parser = duration, default_value = "2s")]
    kill_after: Duration,

    /// Look below this cgroup2 directory [default: $TIDY_PROCESS_PARENT, else the own cgroup; under
    /// systemd the whole hierarchy]
    #[arg(long, value_name = "CGROUP")]
    parent: Option<PathBuf>,
}

pub(crate) fn top(args: &TopArgs) -> Ended {
    shown(args).unwrap_or_else(|failure| failed(&failure))
}

fn shown(args: &TopArgs) -> Result<Ended, Failure> {
    if args.all_users && !geteuid().is_root() {
        return Err(Failure::NotRoot);
    }
    let lookout = Lookout::over(everywhere(args.parent.as_deref()).as_deref())?;
    let user = (!args.all_users).then(|| geteuid().as_raw());
    let sampler = Sampler::new(lookout, user);
    let model = Model::new(args.order);
    if !(stdin().is_terminal() && stdout().is_terminal()) || is_dumb() {
        snapshot(sampler, model)?;
        return Ok(Ended { exit: 0, by_signal: None });
    }
    Live::new(sampler, model, args.kill_after).run()
}

/// One table, for what reads a pipe.
fn snapshot(mut sampler: Sampler, mut model: Model) -> Result<(), Failure> {
    sampler.scan(&mut model);
    let all = model.order_all();
    sampler.detail(&mut model, &all);
    sampler.ports(&mut model, &all);
    thread::sleep(BETWEEN);
    sampler.scan(&mut model);
    let all = model.order_all();
    sampler.detail(&mut model, &all);
    print(&draw::table(&model))
}
