//! The recipes of `docs/recipes.md`, as they stand there, as an ordinary user.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serial_test::serial;
use tidy_process::Tree;

use super::{open_dir, stage};
use crate::attacks::permissions::{delegated, ordinary};
use crate::server::free_port;
use crate::support::{Alone, SOON, Stage, skip, tool, until};

const PAGE: &str = include_str!("../../../docs/recipes.md");

/// The commands below a heading, at each level, with what comes before them.
fn recipes(heading: &str) -> Vec<String> {
    let section = PAGE.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let block = section.unwrap().split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let (before, _) = block.split_at(block.find("tidy-process run").unwrap());
    let lines = block[before.len()..].replace("\\\n", " ");
    let found: Vec<_> = lines.lines().map(|line| format!("{before}{line}")).collect();
    assert!(found.len() == 2 && found[0].contains("run --fence "), "{found:?}");
    assert!(found[1].contains("run --sandbox "), "{found:?}");
    found
}

/// A directory of the user's own, in which a recipe is run.
struct Kitchen {
    stage: Stage,
    tree: Option<Tree>,
    dir: PathBuf,
}

impl Kitchen {
    /// None where something is missing, which is said.
    fn open(program: &str, set_up: &str) -> Option<Self> {
        let stage = stage()?;
        let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        if !there.unwrap().status.success() {
            skip(&format!("{program} is missing, for its recipe; ci/test installs it"));
            return None;
        }
        let tree = if geteuid().is_root() { Some(delegated(&stage)?) } else { None };
        let dir = open_dir("recipe").canonicalize().unwrap();
        if tree.is_some() {
            chown(&dir, Some(65534), Some(65534)).unwrap();
        }
        let kitchen = Self { stage, tree, dir };
        let output = kitchen.command(set_up).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        Some(kitchen)
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        let tools = Path::new(tool()).parent().unwrap().display();
        let path = format!("{tools}:{}", std::env::var("PATH").unwrap());
        self.stage.mark_std(command.args(["-ec", script]).current_dir(&self.dir));
        command.env("PATH", path).env("HOME", &self.dir).stdin(Stdio::null());
        if let Some(tree) = &self.tree {
            ordinary(&mut command, tree);
        }
        command
    }

    fn close(self) {
        fs::remove_dir_all(&self.dir).unwrap();
        let left = self.tree.map(|tree| tree.finish().unwrap().leftovers);
        assert!(left.is_none_or(|left| left.is_empty()));
        self.stage.close(Alone::Yes);
    }
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Runs a recipe at each level, in a directory that is set up for each; `check` says `wanted`.
fn cooked(heading: &str, program: &str, set_up: &str, check: &str, wanted: &str) {
    for recipe in recipes(heading) {
        let Some(kitchen) = Kitchen::open(program, set_up) else { return };
        let output = kitchen.command(&recipe).output().unwrap();
        assert!(output.status.success(), "{recipe}: {}", said(&output));
        assert!(!said(&output).contains("leftover"), "{recipe}: {}", said(&output));
        let text = match check {
            "" => said(&output),
            check => said(&kitchen.command(check).output().unwrap()),
        };
        assert!(text.contains(wanted), "{recipe}: {text}");
        kitchen.close();
    }
}

#[test]
#[serial]
fn make_builds_what_runs() {
    let set_up = "printf 'int puts(const char*);int main(void){return puts(\"built\")<0;}' >a.c
        printf 'a: a.c\\n\\tgcc -O1 -o a a.c\\n' >Makefile";
    cooked("make", "make", set_up, "./a", "built");
}

#[test]
#[serial]
fn git_commits_a_change() {
    let set_up = "git init -q .; git config user.name a; git config user.email a@b
        echo 1 >x; git add x; git commit -qm first; echo 2 >x";
    cooked("git", "git", set_up, "git log --oneline", "A change");
}

#[test]
#[serial]
fn npm_runs_tests() {
    let set_up = r#"echo '{"scripts": {"test": "node test.js"}}' >package.json
cat >test.js <<'E'
const { Worker, isMainThread, parentPort } = require('worker_threads');
if (!isMainThread) parentPort.postMessage(42);
else new Worker(__filename).on('message', (n) => {
  require('child_process').execFileSync('true');
  require('fs').writeFileSync('made', String(n));
});
E"#;
    cooked("npm", "npm", set_up, "cat made", "42");
}

#[test]
#[serial]
fn python_runs_tests_with_threads_processes_and_an_event_loop() {
    let set_up = "cat >test_all.py <<'E'
import asyncio, multiprocessing, threading, unittest
class All(unittest.TestCase):
    def test_threads(self):
        done = []
        threads = [threading.Thread(target=done.append, args=(n,)) for n in range(8)]
        [t.start() for t in threads]; [t.join() for t in threads]
        self.assertEqual(len(done), 8)
    def test_processes(self):
        with multiprocessing.Pool(2) as pool: self.assertEqual(pool.map(abs, [-1, -2]), [1, 2])
    def test_asyncio(self):
        async def main():
            async def echo(reader, writer):
                writer.write(await reader.readline()); writer.close()
            server = await asyncio.start_server(echo, '127.0.0.1', 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b'hi\\n')
            self.assertEqual(await reader.readline(), b'hi\\n')
            self.assertEqual(await (await asyncio.create_subprocess_exec('true')).wait(), 0)
        asyncio.run(main())
E";
    cooked("Python", "python3", set_up, "", "Ran 3 tests");
}

#[test]
#[serial]
fn postgresql_starts_answers_and_stops() {
    cooked("PostgreSQL", "psql", "true", "", "42\n");
}

#[test]
#[serial]
fn chromium_dumps_what_a_script_has_made() {
    let set_up = "cat >page.html <<'E'
<body><script>document.body.textContent = 'made ' + 6 * 7</script></body>
E";
    cooked("Chromium", "chromium", set_up, "", "made 42");
}

/// What the server says, once it answers.
fn asked(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.contains("200 OK").then_some(text)
}

#[test]
#[serial]
fn the_host_reaches_a_flask_server() {
    let Some(python) = std::env::var_os("TIDY_FLASK_PYTHON").map(PathBuf::from) else {
        return skip("TIDY_FLASK_PYTHON names no Python with Flask; ci/test sets it");
    };
    let venv = python.parent().and_then(Path::parent).unwrap().canonicalize().unwrap();
    // One whose interpreter this user may run, whoever has made the other one.
    let set_up = format!(
        "/usr/bin/python3 -m venv --without-pip venv
        cp -r {}/lib/python3*/site-packages/. venv/lib/python3*/site-packages/",
        venv.display(),
    );
    let app = "from flask import Flask\napp = Flask(__name__)\n@app.get('/')\ndef hello(): \
        return 'hello'\n";
    for recipe in recipes("Flask") {
        let Some(kitchen) = Kitchen::open("/usr/bin/python3", &set_up) else { return };
        fs::write(kitchen.dir.join("app.py"), app).unwrap();
        let port = free_port();
        let mut command =
            kitchen.command(&recipe.replace("tidy-process run", "exec tidy-process run"));
        command.env("VENV", kitchen.dir.join("venv")).env("PORT", port.to_string());
        let mut server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut answer = None;
        until(SOON, || {
            answer = asked(port);
            answer.is_some() || server.try_wait().unwrap().is_some()
        });
        // It may have ended by itself, which is seen below.
        let _ = kill(Pid::from_raw(server.id().cast_signed()), Signal::SIGTERM);
        server.wait().unwrap();
        let text = answer.unwrap_or_default();
        assert!(text.ends_with("hello"), "{recipe}: {text}");
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "{recipe}: it is still there");
        drop(command);
        kitchen.close();
    }
}

#[test]
fn every_recipe_has_its_test() {
    let own = include_str!("recipes.rs");
    let headings = PAGE.split("\n## ").skip(1).map(|section| section.lines().next().unwrap());
    for heading in headings {
        let named = [format!("cooked(\"{heading}\""), format!("recipes(\"{heading}\")")];
        assert!(named.iter().any(|name| own.contains(name)), "{heading} is never run");
    }
}
