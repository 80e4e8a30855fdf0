//! Tests that cannot run here: failures that say what to do, or, where `TIDY_MAY_SKIP` allows it,
//! one line at the end that counts them and says why.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, OnceLock, PoisonError};

/// `1` for every reason, or some of the words that name a lack, with commas: `controllers,users`.
const MAY_SKIP: &str = "TIDY_MAY_SKIP";

/// Reasons, and the tests that gave them.
static SKIPPED: Mutex<BTreeMap<String, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

/// The test that calls this cannot run here.
#[track_caller]
pub(crate) fn skip(why: &str) {
    lacks("1", why);
}

/// The same for a lack that has a name, since it is one of a whole kind of host: `controllers` (a
/// pure cgroup v2 hierarchy, and all controllers in it), `systemd` (a host without it), `users`
/// (the right to become another user), `fence` (Linux 6.12), `sandbox` (namespaces for every
/// user), `overlay` (a kernel with overlayfs), `clone` (clone3: where that is named every child
/// joins). `ci/test` allows what its host lacks, by name; `ci/all` runs these tests where nothing
/// is lacking.
#[track_caller]
pub(crate) fn lacks(lack: &str, why: &str) {
    let allowed = is_named("1") || is_named(lack);
    assert!(allowed, "cannot run here: {why} ({MAY_SKIP}=1 skips such tests)");
    at_the_end();
    let mut skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    skipped.entry(of_any_run_root(why)).or_default().insert(test());
}

/// Whether the variable has this very word.
pub(crate) fn is_named(lack: &str) -> bool {
    std::env::var(MAY_SKIP).unwrap_or_default().split(',').any(|word| word == lack)
}

/// The harness names each test's thread after it; with one thread for all, tests are not told
/// apart.
fn test() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

/// The name of a run root is in many reasons, and new in each.
fn of_any_run_root(why: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut parts = why.split("/tidy-process-");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "/tidy-process-*" + part.trim_start_matches(is_name))
}

/// The harness swallows what passing tests print, and exits when all have ended: nothing but a
/// handler of `exit` comes later. Under cargo-nextest each test is a process, and has its own line.
fn at_the_end() {
    REGISTERED_BY.get_or_init(|| {
        // SAFETY: the handler is a function of this program, which is there when it exits.
        #[expect(unsafe_code, reason = "std has no handlers of exit")]
        let failed = unsafe { libc::atexit(report) };
        assert_eq!(failed, 0, "atexit has no room");
        std::process::id()
    });
}

/// A fork of the test binary has the handler too, and nothing to report.
static REGISTERED_BY: OnceLock<u32> = OnceLock::new();

extern "C" fn report() {
    if REGISTERED_BY.get() != Some(&std::process::id()) {
        return;
    }
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let tests: BTreeSet<&String> = skipped.values().flatten().collect();
    let each = skipped.iter().map(|(why, tests)| format!("{why} ({})", tests.len()));
    let whys = each.collect::<Vec<_>>().join("; ");
    let line = format!("skipped tests: {} ({MAY_SKIP}): {whys}\n", tests.len());
    // SAFETY: fd 2 is open for as long as the process, which is about to end.
    #[expect(unsafe_code, reason = "std's stderr may be captured, and locked by a test that hangs")]
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    // Nothing is left to tell that this could not be written.
    _ = nix::unistd::write(stderr, line.as_bytes());
}

#[test]
fn run_roots_of_every_name_are_one_reason() {
    let why = "open \"/a/tidy-process-12-x7/cgroup.kill\": EACCES; /a/tidy-process-9-b, and /b";
    let said = "open \"/a/tidy-process-*/cgroup.kill\": EACCES; /a/tidy-process-*, and /b";
    assert_eq!(of_any_run_root(why), said);
    assert_eq!(of_any_run_root("nothing"), "nothing");
}
