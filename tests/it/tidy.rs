//! The rules of this repository, as tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

fn files(dir: &str, ending: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut todo = vec![root];
    let mut found = Vec::new();
    while let Some(path) = todo.pop() {
        if path.ends_with("target") {
            continue;
        } else if path.is_dir() {
            todo.extend(fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found
}

fn sources() -> Vec<(PathBuf, String)> {
    let all = ["src", "tests", "examples", "benches", "python"]
        .into_iter()
        .flat_map(|dir| files(dir, "rs"));
    all.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn python_sources() -> Vec<(PathBuf, String)> {
    let all = ["python", "examples/python"].into_iter().flat_map(|dir| files(dir, "py"));
    all.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn files_are_short() {
    for (path, text) in sources().into_iter().chain(python_sources()) {
        let lines = text.lines().count();
        assert!(lines <= 400, "{path:?} has {lines} lines");
    }
}

#[test]
fn lines_are_no_longer_than_a_hundred() {
    for (path, text) in sources().into_iter().chain(python_sources()) {
        for (number, line) in text.lines().enumerate() {
            let length = line.chars().count();
            assert!(length <= 100, "{path:?}:{} has {length} characters", number + 1);
        }
    }
}

#[test]
fn unsafe_code_lives_in_few_files() {
    let opted_in = |text: &str| {
        let packed: String = text.split_whitespace().collect();
        packed.contains("#![expect(unsafe_code")
    };
    let files: Vec<_> = sources().into_iter().filter(|(path, _)| path.starts_with(src())).collect();
    let mut found: Vec<_> = files.iter().filter(|(_, text)| opted_in(text)).collect();
    found.sort();
    let names: Vec<_> = found.iter().map(|(path, _)| path.strip_prefix(src()).unwrap()).collect();
    // A guard has no libc: its system calls are its own.
    let guard = ["calls.rs", "main.rs", "mod.rs"];
    let guard = guard.map(|file| Path::new("supervisor/guard/program").join(file));
    // So have a keeper and the program that sets a sandbox up.
    let set_up = ["birth.rs", "calls.rs", "main.rs", "namespaces.rs", "orders.rs"];
    let set_up = set_up.map(|file| Path::new("sandbox/program").join(file));
    let all = [
        "bare/memory.rs",
        "bare/mod.rs",
        "bare/start.rs",
        "exec/child_side.rs",
        "exec/enrolled.rs",
        "explain/listener.rs",
        "keeper/birth.rs",
        "keeper/program/calls.rs",
        "keeper/program/main.rs",
        "sandbox/enter.rs",
    ];
    let all = all.map(Into::into).into_iter().chain(set_up);
    let sys = [
        "clone.rs",
        "environ.rs",
        "fork.rs",
        "identity.rs",
        "mod.rs",
        "opening.rs",
        "pass.rs",
        "proc_events.rs",
        "raw.rs",
    ];
    let sys = sys
        .into_iter()
        .chain(["standin.rs", "status.rs", "terminal.rs"])
        .map(|file| Path::new("sys").join(file));
    let all = all.chain(guard).chain(sys);
    assert_eq!(names, all.collect::<Vec<PathBuf>>());
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let text = read("Cargo.toml");
    let mut lines = text.lines().skip_while(|line| !line.starts_with("[dependencies]")).skip(1);
    let mut reason = false;
    for line in lines.by_ref().take_while(|line| !line.starts_with("[lints")) {
        let entry = line.contains(" = ") && !line.starts_with('#');
        assert!(!entry || reason, "no reason above {line:?}");
        reason = line.starts_with('#');
    }
}

#[test]
fn the_readme_is_short_and_nothing_is_left_open() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 130, "{} lines", readme.lines().count());
    for (path, text) in sources() {
        for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimple", "mented!")] {
            assert!(!text.contains(word), "{path:?} has {word}");
        }
    }
}

/// A row that names a test is shown by one that is there.
#[test]
fn the_tables_of_the_documents_name_tests_that_are_there() {
    let tests: String = sources().into_iter().map(|(_, text)| text).collect();
    let places = read("ci/systemd.d/environments") + &read("ci/engines.d/rows");
    let exists = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists();
    for (document, least) in [("docs/environments.md", 30), ("docs/guarantees.md", 20)] {
        let mut named = 0;
        for row in read(document).lines().filter(|line| line.starts_with("| ")) {
            let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            for word in cell.split('`').skip(1).step_by(2) {
                named += 1;
                let there = exists(word)
                    || exists(&format!("tests/it/{word}"))
                    || exists(&format!("src/{word}"))
                    || tests.contains(&format!("fn {word}("))
                    || places.contains(&format!("\nin_{word}()"))
                    || places.contains(&format!("\nrow_{word}()"))
                    || places.contains(&format!("\n{word}() {{"));
                assert!(there, "{document}: {word} is not there: {row}");
            }
            let honest = cell.contains('`') || cell.starts_with("not tested");
            let honest = honest || cell == "shown by" || cell == "the same test";
            assert!(honest, "{document}: neither shown nor \"not tested\": {row}");
        }
        assert!(named > least, "{document}: {named} names");
    }
}

/// The beginnings of links into this repository.
const OURS: [&str; 3] = [
    "https://github.com/tidy-process/tidy-process/blob/main/",
    "https://github.com/tidy-process/tidy-process/tree/main/",
    "https://raw.githubusercontent.com/tidy-process/tidy-process/main/",
];

/// What a page links to or shows is in the repository.
#[test]
fn the_links_between_the_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = files("docs", "md").into_iter().chain([root.join("README.md")]);
    let mut links = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap()) {
            let ours = OURS.iter().find_map(|prefix| link.strip_prefix(prefix));
            let outside = ours.is_none() && (link.is_empty() || link.contains("://"));
            let is_readme = page.ends_with("README.md");
            // Registries show the README alone.
            assert!(outside || ours.is_some() || !is_readme, "{page:?} links to {link:?}");
            let at = if ours.is_some() { root } else { page.parent().unwrap() };
            let target = at.join(ours.unwrap_or(link));
            // The crate that is published has neither.
            let projects = ["python", "benches"].map(|dir| root.join(dir));
            let published = root.join("Cargo.toml.orig").exists();
            let plain = target.components().fold(PathBuf::new(), |path, part| match part {
                Component::ParentDir => path.parent().unwrap().to_owned(),
                part => path.join(part),
            });
            let left_out = published && projects.iter().any(|dir| plain.starts_with(dir));
            let outside = outside || left_out;
            assert!(outside || target.exists(), "{page:?} links to {link:?}");
            links += 1;
        }
    }
    assert!(links > 5, "{links} links");
}

#[test]
fn the_child_never_allocates_panics_or_indexes() {
    let words =
        ["format!", "vec!", "String", "Vec<", "panic!", ".unwrap()", ".expect(", ".to_owned", "]["];
    for path in [
        "src/bare/mod.rs",
        "src/exec/child_side.rs",
        "src/sys/raw.rs",
        "src/sandbox/enter.rs",
        "src/keeper/birth.rs",
        "src/keeper/program/calls.rs",
        "src/keeper/program/mod.rs",
        "src/keeper/program/spare.rs",
        "src/keeper/program/tree.rs",
        "src/proc/parse.rs",
        "src/proc/walk.rs",
        "src/keeper/idle_memory.rs",
        "src/supervisor/guard/program/calls.rs",
        "src/supervisor/guard/program/ending.rs",
        "src/supervisor/guard/program/listing.rs",
        "src/supervisor/guard/program/walk.rs",
        "src/sandbox/program/calls.rs",
        "src/sandbox/program/confine.rs",
        "src/sandbox/program/init.rs",
        "src/sandbox/program/namespaces.rs",
        "src/sandbox/program/orders.rs",
        "src/sandbox/program/view.rs",
    ] {
        let text = read(path);
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in words {
            let mut lines = code.lines().filter(|line| !line.contains("#![expect("));
            assert!(!lines.any(|line| line.contains(word)), "{path} has {word:?}");
        }
    }
}

/// Modules that name each other cannot be read one after the other: the graph of files has no cycle
/// in the library nor in the tool, and the graph of rooms (folders) has none either.
#[test]
fn the_module_graphs_have_no_cycles() {
    for root in ["src", "src/cli"] {
        let graph = imports(&Path::new(env!("CARGO_MANIFEST_DIR")).join(root));
        assert!(graph.len() > 15, "{root}: {} modules", graph.len());
        assert_acyclic(root, &graph);
        let room = |module: &str| module.split("::").next().unwrap().to_owned();
        let mut rooms = Graph::new();
        for (module, needs) in &graph {
            let others = needs.iter().map(|need| room(need)).filter(|need| *need != room(module));
            rooms.entry(room(module)).or_default().extend(others);
        }
        assert_acyclic(root, &rooms);
    }
}

type Graph = BTreeMap<String, BTreeSet<String>>;

/// The modules of one crate by their paths, each with the modules that its code names.
fn imports(root: &Path) -> Graph {
    let name = |path: &Path| {
        let path = path.strip_prefix(root).unwrap().with_extension("");
        let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
        parts.join("::").trim_end_matches("::mod").to_owned()
    };
    // The tool is a crate of its own below the library's folder.
    let is_other_crate = |path: &Path| root == src() && path.starts_with(src().join("cli"));
    let files = files(root.to_str().unwrap(), "rs");
    let files = files.iter().filter(|path| !is_other_crate(path));
    let files: BTreeMap<String, &PathBuf> = files.map(|path| (name(path), path)).collect();
    let modules: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    let mut graph = Graph::new();
    for (module, path) in files.iter().filter(|(name, _)| !["lib", "main"].contains(&&***name)) {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let named = code.split("crate::").skip(1).filter_map(|rest| named_module(rest, &modules));
        graph.insert(module.clone(), named.filter(|name| name != module).collect());
    }
    graph
}

/// The longest module path that `rest`, a path behind `crate::`, starts with.
fn named_module(rest: &str, modules: &BTreeSet<&str>) -> Option<String> {
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    let mut path = &rest[..end.unwrap_or(rest.len())];
    loop {
        if modules.contains(path.trim_end_matches(':')) {
            return Some(path.trim_end_matches(':').to_owned());
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// Takes away, again and again, what needs nothing that is left: the rest is in a cycle, or needs
/// one.
fn assert_acyclic(what: &str, graph: &Graph) {
    let mut graph = graph.clone();
    while let Some(free) = graph
        .iter()
        .find(|(_, needs)| needs.iter().all(|need| !graph.contains_key(need)))
        .map(|(name, _)| name.clone())
    {
        graph.remove(&free);
    }
    assert!(graph.is_empty(), "{what}: cycles among {graph:#?}");
}
