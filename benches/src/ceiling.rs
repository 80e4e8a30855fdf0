//! How many cgroups a machine makes and removes in a second: the kernel has one lock for all of
//! them (`cgroup_mutex`), so more threads make no more, whoever's parent they are in.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::Res;
use crate::options::Options;
use crate::table::table;

const THREADS: [usize; 4] = [1, 2, 4, 8];

pub(crate) fn measure(options: &Options, base: &Path) -> Res {
    let time = Duration::from_millis(if options.quick { 20 } else { 1000 });
    let mut rows = Vec::new();
    for threads in THREADS {
        let [shared, own] = [false, true].map(|own| rate(base, threads, own, time));
        let per_second = |rate: f64| format!("{rate:.0}");
        rows.push(vec![threads.to_string(), per_second(shared?), per_second(own?)]);
    }
    println!("\n## Cgroups made and removed in a second, by all threads together\n");
    println!("{}", table(&["threads", "in one parent", "in a parent of its own each"], &rows));
    Ok(())
}

fn rate(base: &Path, threads: usize, own: bool, time: Duration) -> Res<f64> {
    let parents: Vec<PathBuf> =
        (0..threads).map(|number| base.join(format!("p{number}"))).collect();
    let parents = if own { parents } else { Vec::new() };
    parents.iter().try_for_each(fs::create_dir)?;
    let start = Instant::now();
    let work = |number: usize| -> Result<u32, String> {
        let parent = parents.get(number).map_or(base, PathBuf::as_path);
        let dir = parent.join(format!("c{number}"));
        let mut count = 0;
        while start.elapsed() < time {
            let cycle = fs::create_dir(&dir).and_then(|()| fs::remove_dir(&dir));
            cycle.map_err(|error| format!("{}: {error}", dir.display()))?;
            count += 1;
        }
        Ok(count)
    };
    let counts = thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|number| scope.spawn(move || work(number))).collect();
        all.into_iter().map(|each| each.join().unwrap_or(Err("a panic".to_owned()))).collect()
    });
    let counts: Result<Vec<u32>, String> = counts;
    let took = start.elapsed().as_secs_f64();
    parents.iter().try_for_each(fs::remove_dir)?;
    Ok(counts?.into_iter().map(f64::from).sum::<f64>() / took)
}
