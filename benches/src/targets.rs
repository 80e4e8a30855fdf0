//! What was promised, and what was measured.

use crate::table::table;

#[derive(Default)]
pub(crate) struct Targets {
    all: Vec<Target>,
    run: usize,
}

struct Target {
    what: String,
    bound: f64,
    unit: &'static str,
    measured: Vec<f64>,
}

impl Targets {
    /// The next of several runs.
    pub(crate) fn begin(&mut self) {
        self.run += 1;
    }

    /// A figure that may be `bound` at the most.
    pub(crate) fn at_most(&mut self, what: &str, bound: f64, unit: &'static str, measured: f64) {
        match self.all.iter_mut().find(|target| target.what == what) {
            Some(target) => target.measured.push(measured),
            None => {
                let what = what.to_owned();
                self.all.push(Target { what, bound, unit, measured: vec![measured] });
            }
        }
    }

    pub(crate) fn table(&self) -> String {
        let runs = (1..=self.run).map(|run| format!("run {run}"));
        let header: Vec<String> = ["", "at most"]
            .into_iter()
            .map(str::to_owned)
            .chain(runs)
            .chain(["spread".to_owned(), "met".to_owned()])
            .collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        table(&header, &self.all.iter().map(|target| target.row(self.run)).collect::<Vec<_>>())
    }
}

impl Target {
    fn row(&self, runs: usize) -> Vec<String> {
        let figure = |run: usize| self.measured.get(run).map_or("-".to_owned(), |&f| self.shown(f));
        let least = self.measured.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.measured.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let met = self.measured.iter().filter(|&&figure| figure <= self.bound).count();
        let spread = if least > 0.0 {
            format!("{:.0} %", (most / least - 1.0) * 100.0)
        } else {
            "-".to_owned()
        };
        [self.what.clone(), self.shown(self.bound)]
            .into_iter()
            .chain((0..runs).map(figure))
            .chain([spread, format!("{met} of {}", self.measured.len())])
            .collect()
    }

    fn shown(&self, figure: f64) -> String {
        let digits = if self.unit.is_empty() || self.unit == "ms" { 2 } else { 1 };
        format!("{figure:.digits$} {}", self.unit).trim_end().to_owned()
    }
}
