//! What `top` takes of a CPU while it looks at a thousand trees.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child as StdChild, Command as StdCommand, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use tidy_process::{Child, Command, Supervisor};

use crate::Res;
use crate::options::Options;
use crate::table::table;
use crate::targets::Targets;

const TREES: usize = 1000;

/// Its first looks, which know nothing yet.
const WARM_UP: Duration = Duration::from_secs(5);

const SIZES: [(u16, u16); 2] = [(80, 24), (200, 60)];

pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    let (count, time) = match options.quick {
        true => (20, Duration::from_secs(2)),
        false => (TREES, Duration::from_secs(60)),
    };
    let supervisor = Supervisor::builder().build()?;
    let base = supervisor.path().ok_or("no cgroups")?.display().to_string();
    let sleeping = |number: usize| -> Res<Child> {
        let mut command = Command::new("sleep");
        command.arg("600").supervisor(&supervisor).name(format!("tree-{number}"));
        Ok(command.spawn()?)
    };
    let trees = (0..count).map(sleeping).collect::<Res<Vec<_>>>()?;
    let mut rows = Vec::new();
    for order in ["start", "cpu"] {
        for size in SIZES {
            let share = share(options, &["--parent", &base, "--order", order], size, time)?;
            rows.push(vec![
                format!("by {order}, {} x {}", size.0, size.1),
                format!("{share:.2} %"),
            ]);
            let what = format!("top of {count} trees by {order}, {} rows", size.1);
            targets.at_most(&what, 1.0, "% of a CPU", share);
        }
    }
    let title = format!("top: {count} trees, over {} s", time.as_secs());
    println!("\n## {title}\n\n{}", table(&["", "of a CPU"], &rows));
    trees.into_iter().try_for_each(|tree| Ok(tree.finish().map(drop)?))
}

/// Runs it in a terminal of its own; returns what it takes, in hundredths of a CPU.
fn share(
    options: &Options,
    args: &[&str],
    (columns, rows): (u16, u16),
    time: Duration,
) -> Res<f64> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None)?;
    let mut command = StdCommand::new(&options.tool);
    command.arg("top").args(args).env("TERM", "xterm-256color");
    command.stdin(Stdio::from(terminal.slave.try_clone()?));
    let mut tool = command.stdout(Stdio::from(terminal.slave)).spawn()?;
    // The command has the terminal's other side still.
    drop(command);
    let mut screen = File::from(terminal.master);
    // A terminal that is not read would hold it up. It ends with the last of its writers.
    let reader =
        thread::spawn(move || while screen.read(&mut [0; 65_536]).is_ok_and(|it| it > 0) {});
    let measured = used_in(&mut tool, time);
    tool.kill()?;
    tool.wait()?;
    reader.join().map_err(|_| "the reader of the terminal")?;
    Ok(measured? * 100.0)
}

/// The share of a CPU.
fn used_in(tool: &mut StdChild, time: Duration) -> Res<f64> {
    thread::sleep(WARM_UP.min(time));
    let (before, start) = (used(tool.id())?, Instant::now());
    thread::sleep(time);
    let share = (used(tool.id())? - before).as_secs_f64() / start.elapsed().as_secs_f64();
    match tool.try_wait()? {
        None => Ok(share),
        Some(status) => Err(format!("top has ended: {status}").into()),
    }
}

/// What all threads of a process have used, to the nanosecond.
fn used(pid: u32) -> Res<Duration> {
    let mut all = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let used = text.split(' ').next().unwrap_or_default().parse()?;
        all += Duration::from_nanos(used);
    }
    Ok(all)
}
