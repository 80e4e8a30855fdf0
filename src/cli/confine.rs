//! The options of `run` and `with` that confine commands beyond their cgroups.
//!
//! The struct has no doc comment of its own: that would become the help of the subcommand.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf, absolute};

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args, value_parser};
use tidy_process::cli_support::{self, check_handed_over};
use tidy_process::{Child, Network, Plan, Report, Sandbox, SupervisorBuilder};

use crate::exit::{Ended, Failure, open_failure};
use crate::learn::{self, Asked};
use crate::print::json::{Sink, Subject};
use crate::print::text::{failed, print};
use crate::profile::{self, Profile};
use crate::proxy::rules::{Host, Rules};
use crate::proxy::{self, Proxy};
use crate::whole::WholeFile;

#[derive(Debug, Clone, Default, Args)]
#[command(group = ArgGroup::new("layers").multiple(true))]
pub(crate) struct ConfineArgs {
    /// Confine what is started: it cannot leave its cgroup, signal, trace, renice or limit
    /// processes outside, or gain privileges, or it is not run (125); see docs/sandbox.md
    #[arg(long, group = "level")]
    pub(crate) fence: bool,

    /// Besides, let it see only /usr and /etc (to be read), what the next options name, and a /tmp,
    /// processes and a network of its own; or it is not run (125); see docs/sandbox.md
    #[arg(long, group = "level", group = "view", conflicts_with = "fence")]
    pub(crate) sandbox: bool,

    /// Take level and names from FILE (TOML)
    #[arg(long, value_name = "FILE", group = "level", group = "view", group = "layers")]
    #[arg(conflicts_with = "fence")]
    profile: Option<PathBuf>,

    /// Show it a file or directory, to be read
    #[arg(long, value_name = "PATH", requires = "view")]
    read: Vec<PathBuf>,

    /// Show it a file or directory, to be read and written
    #[arg(long, value_name = "PATH", requires = "view")]
    write: Vec<PathBuf>,

    /// Cover what is at PATH, below one that is shown
    #[arg(long, value_name = "PATH", requires = "view")]
    hide: Vec<PathBuf>,

    /// Put an empty directory in memory at PATH, which it may write to
    #[arg(long, value_name = "PATH", requires = "view")]
    tmpfs: Vec<PathBuf>,

    /// Show it a directory that it may change as it likes and that stays as it is: what is written
    /// there is dropped at its end, unless --commit is given
    #[arg(long, value_name = "DIR", requires = "view", group = "layers")]
    overlay: Vec<PathBuf>,

    /// Write to FILE what it has added, changed and removed in the directories of --overlay; "-" is
    /// standard output
    #[arg(long, value_name = "FILE", requires = "layers")]
    pub(crate) changes: Option<PathBuf>,

    /// Do to the directories of --overlay what it has done there, if it succeeds
    #[arg(long, requires = "layers")]
    pub(crate) commit: bool,

    /// Its network: none, a loopback interface of its own, or the host's [default: none]
    #[arg(long, value_name = "NET", requires = "view")]
    #[arg(value_parser = PossibleValuesParser::new(["none", "loopback", "host"]))]
    net: Option<String>,

    /// Let it reach this host, by a proxy for HTTPS (in HTTPS_PROXY) that is the only way out of a
    /// network of its own; port 443 if none is given. Private addresses have to be named themselves
    #[arg(long, value_name = "NAME[:PORT]", requires = "view", conflicts_with = "net")]
    #[arg(value_parser = Host::parse)]
    allow_host: Vec<Host>,

    /// Keep this variable of the environment, beside PATH, TERM, LANG, LC_*, TZ and what -E sets
    #[arg(long, value_name = "K", requires = "view")]
    keep_env: Vec<OsString>,

    /// Let it make a system call that its level refuses
    #[arg(long, value_name = "NAME", requires = "level")]
    allow_syscall: Vec<String>,

    /// Refuse it this system call too
    #[arg(long, value_name = "NAME", requires = "level")]
    deny_syscall: Vec<String>,

    /// Let it have fd N of tidy-process; each level closes all but the three streams
    #[arg(long, value_name = "N", requires = "level", value_parser = value_parser!(i32).range(3..))]
    keep_fd: Vec<RawFd>,

    /// Say at its end what it was denied, and which option would allow it. Calls take longer: see
    /// docs/sandbox.md
    #[arg(long, requires = "level")]
    pub(crate) explain: bool,

    /// Run it in a sandbox in which it reaches every file and changes none, and write to FILE the
    /// profile that it would have needed
    #[arg(long, value_name = "FILE", group = "level", group = "view", group = "layers")]
    #[arg(conflicts_with_all = ["fence", "profile", "commit"])]
    pub(crate) learn: Option<PathBuf>,

    /// Say what would confine it, every path and call, and run nothing
    #[arg(long, requires = "level")]
    pub(crate) plan: bool,
}

/// A sandbox, and the proxy that serves its network.
type Made = (Sandbox, Option<Proxy>);

impl ConfineArgs {
    fn made(&self) -> Result<Made, Failure> {
        self.learn.iter().try_for_each(|file| learn::check(file))?;
        // Before anything is opened under one of these numbers.
        self.keep_fd.iter().try_for_each(|&fd| check_handed_over(fd))?;
        let (level, named) = match &self.profile {
            Some(profile) => {
                let Profile { sandbox, hosts } = profile::read(profile)?;
                (sandbox, hosts)
            }
            None if self.sandbox || self.learn.is_some() => (Sandbox::new().system(), Vec::new()),
            None => (Sandbox::fence(), Vec::new()),
        };
        let hosts = named.into_iter().filter(|_| self.net.is_none());
        let hosts: Vec<Host> = hosts.chain(self.allow_host.iter().cloned()).collect();
        let here = absolute(".").map_err(|error| open_failure(Path::new("."), error))?;
        let place = |path: &PathBuf| profile::place(&here, path);
        let level = self.read.iter().map(place).fold(level, Sandbox::read_only);
        let level = self.write.iter().map(place).fold(level, Sandbox::read_write);
        let level = self.hide.iter().map(place).fold(level, Sandbox::hide);
        let level = self.tmpfs.iter().map(place).fold(level, Sandbox::private);
        let level = self.overlay.iter().map(place).fold(level, Sandbox::overlay);
        let network = self.net.as_deref().and_then(profile::network);
        let level = network.into_iter().fold(level, Sandbox::network);
        let level = level.keep_env(&self.keep_env).inherit_fds(self.keep_fd.iter().copied());
        let level = self.deny_syscall.iter().fold(level, Sandbox::deny_syscall);
        let level = self.allow_syscall.iter().fold(level, Sandbox::allow_syscall);
        let level = if self.explain { level.explain() } else { level };
        let widen = |level: Sandbox| match self.learn {
            Some(_) => learn::widened(&level, &here, &self.named(&here)),
            None => level,
        };
        if hosts.is_empty() {
            return Ok((widen(level), None));
        }
        let level = widen(level.network(Network::Forward(proxy::PORT)));
        Ok((level, Some(Proxy::new(Rules::new(hosts)))))
    }

    /// What several commands need is not one profile.
    pub(crate) fn refuse_learning(&self) -> Result<(), Failure> {
        match self.learn {
            None => Ok(()),
            Some(_) => Err(Failure::Nowhere {
                what: "with learns no profile".to_owned(),
                hint: "learn it for each command, with tidy-process run --learn".into(),
            }),
        }
    }

    /// What several commands do to one directory is not one list of changes, nor one commit.
    pub(crate) fn refuse_for_many(&self, sub: &str) -> Result<(), Failure> {
        let why = match self {
            Self { learn: Some(_), .. } => "learns no profile",
            Self { changes: Some(_), .. } | Self { commit: true, .. } => "keeps no changes",
            _ => return Ok(()),
        };
        Err(Failure::Nowhere {
            what: format!("{sub} {why}"),
            hint: "have each command be a tidy-process run of its own".into(),
        })
    }

    /// The paths that are named.
    fn named(&self, here: &Path) -> BTreeSet<PathBuf> {
        let all = [&self.read, &self.write, &self.hide, &self.tmpfs, &self.overlay];
        all.into_iter().flatten().map(|path| profile::place(here, path)).collect()
    }

    /// Writes what was learned, if that was asked for.
    pub(crate) fn note_learned(
        &self,
        command: &[OsString],
        child: &Child,
        report: &Report,
        (file, quiet): (Option<&WholeFile>, bool),
    ) -> Result<(), Failure> {
        let Some(file) = file else { return Ok(()) };
        let here = absolute(".").map_err(|error| open_failure(Path::new("."), error))?;
        let text = |path: &PathBuf| profile::place(&here, path).to_string_lossy().into_owned();
        let paths = |all: &[PathBuf]| all.iter().map(text).collect();
        let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
        let asked = Asked {
            command: words.join(" "),
            lists: vec![
                ("read", paths(&self.read)),
                ("write", paths(&self.write)),
                ("hide", paths(&self.hide)),
                ("tmpfs", paths(&self.tmpfs)),
                ("overlay", paths(&self.overlay)),
                ("allow-host", self.allow_host.iter().map(ToString::to_string).collect()),
                (
                    "keep-env",
                    self.keep_env.iter().map(|key| key.to_string_lossy().into()).collect(),
                ),
                ("allow-syscall", self.allow_syscall.clone()),
                ("deny-syscall", self.deny_syscall.clone()),
            ],
            net: self.net.as_deref(),
        };
        let mut needs = cli_support::needs(child);
        let inside = here.starts_with("/usr") || here.starts_with("/etc") || here == Path::new("/");
        if !inside {
            needs.read.insert(here);
        }
        learn::write(file, &asked, &needs, report, quiet)
    }

    fn confines(&self) -> bool {
        self.fence || self.sandbox || self.profile.is_some() || self.learn.is_some()
    }

    /// Confines all that the supervisor will start; returns the proxy that is to serve it.
    pub(crate) fn all_of(
        &self,
        builder: SupervisorBuilder,
    ) -> Result<(SupervisorBuilder, Option<Proxy>), Failure> {
        if !self.confines() {
            return Ok((builder, None));
        }
        let (sandbox, proxy) = self.made()?;
        Ok((builder.sandbox(&sandbox), proxy))
    }

    /// The plan, with the hosts that the proxy allows.
    fn planned(&self) -> Result<Plan, Failure> {
        let (sandbox, proxy) = self.made()?;
        let mut plan = sandbox.plan()?;
        let network = plan.layers.iter_mut().find(|it| it.mechanism == "network-namespace");
        if let Some((network, proxy)) = network.zip(proxy) {
            network.details.extend(proxy.hosts().map(|host| format!("allow host {host}")));
        }
        Ok(plan)
    }

    /// Says the plan, where the report would go or else on standard output.
    pub(crate) fn say_plan(&self, sink: &Sink, subject: Subject<'_>) -> Ended {
        let said = match self.planned() {
            Ok(plan) if sink.is_open() => sink.plan(&plan),
            Ok(plan) => print(&format!("{plan}\n")),
            Err(failure) => {
                let ended = failed(&failure);
                return match sink.failure(subject, ended.exit, &failure, None) {
                    Ok(()) => ended,
                    Err(failure) => failed(&failure),
                };
            }
        };
        said.map_or_else(|failure| failed(&failure), |()| Ended { exit: 0, by_signal: None })
    }
}
