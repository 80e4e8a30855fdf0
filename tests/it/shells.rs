//! Comfort in shells: completion in the real ones, manual pages, help in colour, topics.

use std::fs;

use serial_test::parallel;

use crate::screen::{Screen, has};
use crate::support::{Alone, Stage, tool};

/// A shell that completes words of the tool, which it finds in `PATH`, and how it is started.
struct Shell {
    name: &'static str,
    program: &'static [&'static str],
    /// Typed first.
    setup: &'static str,
}

const BASH: Shell = Shell {
    name: "bash",
    program: &["bash", "--norc", "--noprofile"],
    setup: "PS1='prompt> '; bind 'set bell-style none' 'set show-all-if-ambiguous on'; \
            source <($T completions bash)",
};

const ZSH: Shell = Shell {
    name: "zsh",
    program: &["zsh", "-f"],
    setup: "PS1='prompt> '; unsetopt beep; autoload -Uz compinit; compinit -u -D; \
            source <($T completions zsh)",
};

const FISH: Shell = Shell {
    name: "fish",
    program: &["fish", "--no-config"],
    setup: "function fish_prompt; echo 'prompt> '; end; $T completions fish | source",
};

/// Opens the shell, with trees of these names in the stage, does this, and ends all.
fn in_shell(shell: &Shell, names: &[&str], first: &str, act: impl Fn(&Screen)) {
    let Some(stage) = Stage::set() else { return };
    if !has(shell.name, shell.name) {
        return stage.close(Alone::No);
    }
    let spawn = |name: &&str| stage.sh("exec sleep 60").name(name).spawn().unwrap();
    let children: Vec<_> = names.iter().map(spawn).collect();
    let Some(screen) = Screen::open(&stage, (100, 40), shell.program) else { return };
    let path = std::path::Path::new(tool()).parent().unwrap().display().to_string();
    let set_path = if shell.name == "fish" { "set -x PATH" } else { "export PATH=" };
    let separator = if shell.name == "fish" { " " } else { "" };
    let path_now = if shell.name == "fish" { " $PATH" } else { ":$PATH" };
    screen.enters(&format!("{set_path}{separator}{path}{path_now}"));
    screen.enters(first);
    screen.enters(shell.setup);
    screen.press(&["C-l"]);
    screen.enters("echo is-$((1 + 1))".replace("$((1 + 1))", "set").as_str());
    screen.becomes("is-set", |text| text.lines().any(|line| line.trim_end() == "is-set"));
    act(&screen);
    screen.close();
    children.into_iter().for_each(|child| drop(child.finish().unwrap()));
    stage.close(Alone::No);
}

/// Types it and a tab: until this is seen. The line is thrown away afterwards.
fn completes(screen: &Screen, typed: &str, shown: &str) {
    screen.types(typed);
    screen.press(&["Tab"]);
    screen.shows(shown);
    // Not Ctrl-C: the terminal would throw away what is typed just behind it.
    screen.press(&["C-u", "C-l"]);
    screen.hides(shown);
}

fn a_shell_completes(shell: &Shell) {
    let names = ["redis-cache", "redis-queue", "$(touch hit)", "semi;colon"];
    in_shell(shell, &names, "true", |screen| {
        completes(screen, "tidy-process doc", "tidy-process doctor");
        completes(screen, "tidy-process run --kill-a", "--kill-after");
        completes(screen, "tidy-process run --leaks rep", "--leaks report");
        completes(screen, "tidy-process help exit", "help exit-status");
        // The names of trees, as far as they are the same, and then all.
        completes(screen, "tidy-process kill redis-c", "kill redis-cache");
        completes(screen, "tidy-process thaw redis-c", "thaw redis-cache");
        screen.types("tidy-process kill ");
        screen.press(&["Tab", "Tab"]);
        screen.becomes("both names", |text| {
            text.contains("redis-cache") && text.contains("redis-queue")
        });
        // Others chose these: in the line they would be executed.
        let text = screen.text();
        assert!(!text.contains("touch") && !text.contains("semi"), "{}: {text}", shell.name);
        screen.press(&["C-u", "C-l"]);
        // What CMD is, and its files.
        completes(screen, "tidy-process run setpri", "run setpriv");
        completes(screen, "tidy-process run cat /etc/passw", "/etc/passwd");
    });
}

#[test]
#[parallel]
fn bash_completes_words_and_names_of_trees() {
    a_shell_completes(&BASH);
}

/// Bash puts a completed word into the line as it is.
#[test]
#[parallel]
fn bash_is_offered_no_file_that_it_would_execute() {
    let dir = std::env::temp_dir().join(format!("tidy-files-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    for name in ["$(touch hit)", "`id`", "a;b", "harmless"] {
        fs::write(dir.join(name), "").unwrap();
    }
    let place = format!("DIR={}", dir.display());
    in_shell(&BASH, &[], &place, |screen| {
        for word in ["run --json", "run cat"] {
            screen.types(&format!("tidy-process {word} {}/", dir.display()));
            screen.press(&["Tab"]);
            // What there is, is one: the whole of it stands there.
            screen.shows("harmless");
            screen.press(&["C-u", "C-l"]);
            screen.hides("harmless");
        }
    });
    fs::remove_dir_all(dir).unwrap();
}

#[test]
#[parallel]
fn zsh_completes_words_and_names_of_trees() {
    a_shell_completes(&ZSH);
}

/// As a package has it: the script is a file that is read at the first completion.
#[test]
#[parallel]
fn zsh_completes_by_a_file_too() {
    let dir = std::env::temp_dir().join(format!("tidy-fpath-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let shell = Shell {
        setup: "PS1='prompt> '; unsetopt beep; fpath=($DIR $fpath); \
                $T completions zsh >$DIR/_tidy-process; autoload -Uz compinit; compinit -u -D",
        ..ZSH
    };
    let set = format!("DIR={}", dir.display());
    in_shell(&shell, &["redis"], &set, |screen| {
        completes(screen, "tidy-process kill re", "tidy-process kill redis");
    });
    fs::remove_dir_all(dir).unwrap();
}

#[test]
#[parallel]
fn fish_completes_words_and_names_of_trees() {
    a_shell_completes(&FISH);
}

/// What a shell asks is not asked by a variable that other programs use.
#[test]
#[parallel]
fn a_variable_of_other_programs_completes_nothing() {
    let Some(stage) = Stage::set() else { return };
    let output = stage.tool(&["--version"]).env("COMPLETE", "bash").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("tidy-process 0."));
    let output = stage.tool(&["x"]).env("_TIDY_PROCESS_COMPLETE", "csh").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125));
    assert!(said.contains("unknown shell `csh`"), "{said}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn every_subcommand_says_its_version() {
    let Some(stage) = Stage::set() else { return };
    let whole = stage.tool(&["--version"]).output().unwrap().stdout;
    let version = String::from_utf8(whole).unwrap().trim().replace("tidy-process ", "");
    for sub in subcommands(&stage) {
        for flag in ["--version", "-V"] {
            let output = stage.tool(&[&*sub, flag]).output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(said.trim(), format!("tidy-process-{sub} {version}"), "{sub} {flag}");
        }
    }
    stage.close(Alone::No);
}

/// As the help lists them.
fn subcommands(stage: &Stage) -> Vec<String> {
    let help = String::from_utf8(stage.tool(&["--help"]).output().unwrap().stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let words = commands.lines().filter_map(|line| line.strip_prefix("  "));
    let words = words.filter(|line| !line.starts_with(' '));
    let all: Vec<String> = words.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert!(all.len() >= 8, "{all:?}");
    all
}

#[test]
#[parallel]
fn help_is_coloured_on_a_terminal_alone() {
    let Some(stage) = Stage::set() else { return };
    let Some(screen) = Screen::shell(&stage, (100, 60)) else { return };
    screen.enters("$T run --help | head -20; $T doctor --help; echo done");
    screen.says("done");
    let text = screen.colours();
    let (piped, direct) = text.split_once("doctor").unwrap();
    assert!(!piped.contains("\x1b[1m\x1b[32m") && !piped.contains("\x1b[36m"), "{piped}");
    assert!(direct.contains("\x1b[36m") || direct.contains(";36m"), "{direct}");
    screen.press(&["C-l"]);
    screen.enters("NO_COLOR=1 $T doctor --help; TERM=dumb $T doctor --help; echo ended");
    screen.says("ended");
    let text = screen.colours();
    assert!(!text.contains("36m") && !text.contains("32m"), "{text}");
    screen.close();
    stage.close(Alone::No);
}

/// The short texts agree with the long ones, and with the tool.
#[test]
#[parallel]
fn the_topics_agree_with_the_documents() {
    let Some(stage) = Stage::set() else { return };
    let said = |words: &[&str]| {
        let output = stage.tool(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let topics = said(&["help", "topics"]);
    let run = said(&["run", "--help"]);
    for topic in ["exit-status", "limits", "containers"] {
        assert!(topics.contains(&format!("  {topic} ")), "{topics}");
        let text = said(&["help", topic]);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let options = text.split(|c: char| !c.is_ascii_lowercase() && c != '-');
        let of_run = |option: &&str| option.starts_with("--");
        let others = ["--security-opt", "--cgroupns", "--privileged", "--init", "--require"];
        for option in options.filter(of_run).filter(|option| !others.contains(option)) {
            assert!(run.contains(option), "{topic}: run has no {option}");
        }
    }
    let read = |path: &str| {
        fs::read_to_string(format!("{}/docs/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let statuses = said(&["help", "exit-status"]);
    for row in read("command-line.md").lines().filter(|line| line.starts_with("| 12")) {
        let number = row.split(' ').nth(1).unwrap();
        assert!(statuses.contains(&format!("  {number} ")), "{number} is not explained");
    }
    let (containers, environments) = (said(&["help", "containers"]), read("environments.md"));
    for line in containers.lines().filter(|line| line.contains("run --init")) {
        let start = line.find("docker run").or(line.find("podman run")).unwrap();
        assert!(environments.contains(&line[start..]), "{line}");
    }
    assert_eq!(said(&["help", "run"]), run);
    assert_eq!(said(&["help"]), said(&["--help"]));
    assert_eq!(stage.tool(&["help", "nothing"]).output().unwrap().status.code(), Some(125));
    stage.close(Alone::No);
}

/// One for each subcommand, which man(1) shows without a complaint.
#[test]
#[parallel]
#[cfg(feature = "man")]
fn the_manual_has_a_page_for_each_subcommand() {
    let Some(stage) = Stage::set() else { return };
    if !has("man", "man-db") {
        return stage.close(Alone::No);
    }
    let dir = std::env::temp_dir().join(format!("tidy-man-{}", std::process::id()));
    let status = stage.tool(&["man", dir.to_str().unwrap()]).status().unwrap();
    assert!(status.success());
    let names = subcommands(&stage).into_iter().map(|sub| format!("tidy-process-{sub}"));
    for name in names.chain(["tidy-process".to_owned()]) {
        let page = dir.join(format!("{name}.1"));
        let mut man = std::process::Command::new("man");
        man.args(["--warnings=all", "-l"])
            .arg(&page)
            .env("MANWIDTH", "80")
            .env("LC_ALL", "C.UTF-8");
        let output = man.output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("SYNOPSIS") && text.contains(&name), "{name}: {text}");
    }
    let run = fs::read_to_string(dir.join("tidy-process-run.1")).unwrap();
    assert!(run.contains("kill\\-after") && run.contains("124"), "{run}");
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::No);
}
