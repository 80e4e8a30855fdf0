//! Real programs in a sandbox.

use std::fs;
use std::path::Path;

use serial_test::serial;
use tidy_process::{Network, Sandbox};

use super::{open_dir, stage, text};
use crate::support::{Alone, skip};

/// Runs a script in a directory of its own, which it may write to.
fn runs(program: &str, script: &str, network: Network) {
    let Some(stage) = stage() else { return };
    if !Path::new(program).exists() {
        return skip(&format!("{program} is not there"));
    }
    let dir = open_dir("real");
    let sandbox = Sandbox::new().system().read_write(&dir).network(network);
    let mut command = stage.sh(script);
    command.sandbox(&sandbox).current_dir(&dir);
    if nix::unistd::geteuid().is_root() {
        // git works in a directory of its own user.
        std::os::unix::fs::chown(&dir, Some(4242), Some(4242)).unwrap();
        command.uid(4242).gid(4242);
    }
    let output = command.output().unwrap();
    let said = text(&output);
    assert!(output.status.success() && said.ends_with("well\n"), "{}: {said}", output.status);
    assert_eq!(output.report.leftover_count, 0, "{:?}", output.report.leftovers);
    drop((command, sandbox, output));
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn python_has_threads_processes_and_an_event_loop() {
    let script = "cat >t.py <<'E'
import asyncio, multiprocessing, threading, subprocess, tempfile
def square(n): return n * n
async def main():
    async def echo(reader, writer):
        writer.write(await reader.readline()); writer.close()
    server = await asyncio.start_server(echo, '127.0.0.1', 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b'hi\\n')
    assert await reader.readline() == b'hi\\n'
    process = await asyncio.create_subprocess_exec('true')
    assert await process.wait() == 0
if __name__ == '__main__':
    threads = [threading.Thread(target=square, args=(n,)) for n in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    with multiprocessing.Pool(2) as pool: assert pool.map(square, range(4)) == [0, 1, 4, 9]
    asyncio.run(main())
    assert subprocess.run(['sh', '-c', 'exit 3']).returncode == 3
    tempfile.NamedTemporaryFile().write(b'x')
    print('well')
E
/usr/bin/python3 t.py";
    runs("/usr/bin/python3", script, Network::Loopback);
}

#[test]
#[serial]
fn cc_and_make_build_and_what_they_built_runs() {
    let script = "printf 'int puts(const char*);int main(void){puts(\"well\");}' >a.c
        printf 'a: a.c\\n\\tcc -o a a.c\\n' >Makefile
        make -s a && ./a";
    runs("/usr/bin/make", script, Network::None);
}

#[test]
#[serial]
fn git_commits() {
    let script =
        "git init -q . && git config user.name a && git config user.email a@b && echo x >x &&
        git add x && git commit -qm x && git log --oneline | grep -q x && echo well";
    runs("/usr/bin/git", script, Network::None);
}

#[test]
#[serial]
fn node_runs_with_workers_and_a_child() {
    let script = "cat >t.js <<'E'
const { Worker, isMainThread, parentPort } = require('worker_threads');
if (!isMainThread) { parentPort.postMessage(41 + 1); }
else new Worker(__filename).on('message', (n) => {
  const { execFileSync } = require('child_process');
  execFileSync('true');
  require('fs').writeFileSync('made', 'x');
  console.log(n === 42 ? 'well' : 'ill');
});
E
node t.js";
    runs("/usr/bin/node", script, Network::None);
}

#[test]
#[serial]
fn bash_has_jobs_pipes_and_substitutions() {
    let script = "bash -c 'set -e; sleep 0.01 & wait; diff <(echo a) <(echo a); \
        echo a | grep -q a; \
        exec 5>/dev/null; [ -e /dev/fd/5 ]; echo $RANDOM >x; echo well'";
    runs("/bin/bash", script, Network::None);
}
