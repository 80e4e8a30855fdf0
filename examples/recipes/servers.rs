//! The recipes: how each server is started, when it is ready, and what is asked of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidy_process::{Child, Command, Log, Ready, Stdio};

use crate::Any;
use crate::place::Place;

pub(crate) struct Recipe {
    name: &'static str,
    pub(crate) start: fn(&Place, &Log) -> Result<Child, Any>,
    pub(crate) ready: fn(&Place) -> Result<Ready<'static>, Any>,
    pub(crate) request: fn(&Place) -> Result<(), Any>,
}

const RECIPES: [Recipe; 6] = [
    // A reloader, and the server that it starts again and again.
    Recipe { name: "flask", start: flask, ready: answers, request: ok },
    // A master and three workers, that share a socket.
    Recipe { name: "gunicorn", start: gunicorn, ready: answers, request: hello },
    // npm, a shell, a starter and the server.
    Recipe { name: "npm", start: npm, ready: answers, request: hello },
    // pg_ctl ends; what it leaves has a session of its own for each process.
    Recipe { name: "postgres", start: postgres, ready: listens, request: select },
    // Forks, and lets its starter exit.
    Recipe { name: "redis", start: redis, ready: listens, request: ping },
    // A dozen processes, in namespaces of their own where it may.
    Recipe { name: "chromium", start: chromium, ready: version, request: devtools },
];

pub(crate) fn find(name: &str) -> Option<&'static Recipe> {
    RECIPES.iter().find(|recipe| recipe.name == name)
}

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn app() -> PathBuf {
    examples().join("recipes/app")
}

fn python() -> Command {
    let mut command = Command::new(std::env::var_os("TIDY_PYTHON").unwrap_or("python3".into()));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn listens(place: &Place) -> Result<Ready<'static>, Any> {
    Ok(Ready::tcp(place.port))
}

fn answers(place: &Place) -> Result<Ready<'static>, Any> {
    Ok(Ready::http(&format!("http://127.0.0.1:{}/", place.port))?)
}

fn version(place: &Place) -> Result<Ready<'static>, Any> {
    Ok(Ready::http(&format!("http://127.0.0.1:{}/json/version", place.port))?)
}

fn flask(place: &Place, log: &Log) -> Result<Child, Any> {
    let app = examples().join("flask/app.py");
    Ok(python().arg(app).arg(place.port.to_string()).log(log).spawn()?)
}

fn gunicorn(place: &Place, log: &Log) -> Result<Child, Any> {
    let mut command = python();
    command.args(["-m", "gunicorn", "--workers", "3", "--bind"]);
    command.arg(format!("127.0.0.1:{}", place.port)).arg("wsgi:app").current_dir(app());
    Ok(command.log(log).spawn()?)
}

fn npm(place: &Place, log: &Log) -> Result<Child, Any> {
    let mut command = Command::new("npm");
    command.args(["run", "dev"]).current_dir(app()).env("PORT", place.port.to_string());
    command.env("npm_config_update_notifier", "false").env("npm_config_cache", &place.dir);
    Ok(command.stdin(Stdio::null()).log(log).spawn()?)
}

/// PostgreSQL does not run as root: then it runs as the user nobody.
fn postgres(place: &Place, log: &Log) -> Result<Child, Any> {
    let data = place.dir.join("data");
    let program = |name: &str| {
        let mut command = Command::new(bin().join(name));
        if fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0) {
            command.uid(65534).gid(65534);
        }
        command.current_dir("/").arg("-D").arg(&data).log(log);
        command
    };
    if !data.exists() {
        fs::create_dir(&data)?;
        if fs::metadata("/proc/self")?.uid() == 0 {
            place.let_others_pass()?;
            chown(&data, Some(65534), Some(65534))?;
        }
        let made = program("initdb").args(["--auth=trust", "--username=me", "--no-sync"]).run()?;
        if !made.status.success() {
            return Err(format!("initdb: {}\n{}", made.status, log.tail(10)).into());
        }
    }
    wait_until_reaped(&data.join("postmaster.pid"));
    let options = format!("-p {} -c listen_addresses=127.0.0.1", place.port);
    let options = format!("{options} -c unix_socket_directories= -c fsync=off");
    Ok(program("pg_ctl").args(["--no-wait", "-o", &options, "start"]).spawn()?)
}

/// Debian keeps the programs of each version apart.
fn bin() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|version| version.path().join("bin")).max();
    newest.unwrap_or_default()
}

fn redis(place: &Place, log: &Log) -> Result<Child, Any> {
    let mut command = Command::new("redis-server");
    command.args(["--daemonize", "yes", "--save", "", "--bind", "127.0.0.1", "--port"]);
    command.arg(place.port.to_string()).arg("--dir").arg(&place.dir);
    Ok(command.log(log).spawn()?)
}

fn chromium(place: &Place, log: &Log) -> Result<Child, Any> {
    let mut command = Command::new("chromium");
    command.args(["--headless", "--disable-gpu", "--no-first-run", "about:blank"]);
    if fs::metadata("/proc/self")?.uid() == 0 {
        command.arg("--no-sandbox");
    }
    command.arg(format!("--remote-debugging-port={}", place.port));
    command.arg(format!("--user-data-dir={}", place.dir.join("profile").display()));
    // What a killed browser leaves in its temporary directory goes with ours.
    command.env("HOME", &place.dir).env("TMPDIR", &place.dir);
    Ok(command.stdin(Stdio::null()).log(log).spawn()?)
}

fn ok(place: &Place) -> Result<(), Any> {
    get(place, "/", "\r\n\r\nok")
}

fn hello(place: &Place) -> Result<(), Any> {
    get(place, "/", "hello")
}

fn devtools(place: &Place) -> Result<(), Any> {
    get(place, "/json/list", "about:blank")
}

fn ping(place: &Place) -> Result<(), Any> {
    exchange(place, b"PING\r\n", "+PONG")
}

/// The first connections may be told that the database is starting up.
fn select(place: &Place) -> Result<(), Any> {
    let url = format!("postgresql://me@127.0.0.1:{}/postgres", place.port);
    for _ in 0..100 {
        let mut command = Command::new(bin().join("psql"));
        let output = command.args(["-Atc", "select 6 * 7", &url]).output()?;
        if output.stdout == b"42\n" {
            println!("answered 42");
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("the database does not come up".into())
}

fn get(place: &Place, path: &str, wanted: &str) -> Result<(), Any> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    exchange(place, request.as_bytes(), wanted)
}

/// Sends this and reads until the answer has what is wanted: not every server closes then.
fn exchange(place: &Place, request: &[u8], wanted: &str) -> Result<(), Any> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, place.port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    let mut answer = String::new();
    while !answer.contains(wanted) {
        let mut buffer = [0; 4096];
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Err(format!("no {wanted} in {answer}").into());
        }
        answer += &String::from_utf8_lossy(&buffer[..len]);
    }
    println!("answered {wanted}");
    Ok(())
}

/// A daemon that was killed is a zombie until init has reaped it. PostgreSQL takes that for another
/// one that runs.
fn wait_until_reaped(pidfile: &Path) {
    let text = fs::read_to_string(pidfile).unwrap_or_default();
    let Some(pid) = text.lines().next() else { return };
    for _ in 0..500 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if !stat.contains(") Z ") {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
