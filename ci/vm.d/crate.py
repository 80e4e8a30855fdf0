"""The crate's integration tests, built and copied in at the paths that they expect."""

import functools
import json
import os
import shutil

from image import read_list
from tools import Failure, busybox, output


def add_tests(image, words, tiny, here, foreign=None):
    """Returns the command that runs the tests, and the directory where. `foreign`: the directory of the other processor's
    programs."""
    root = os.path.dirname(here)
    tests, programs = built(root, bool(foreign))
    emulator = ["qemu-aarch64", "-L", foreign] if foreign else []
    listed = output(*emulator, tests[0], "--list", *words, cwd=root)
    if "\n0 tests," in "\n" + listed:
        raise Failure(f"no test matches {' '.join(words)}")
    for path in tests + programs:
        # The others are linked without.
        image.add(path if foreign else without_debug_information(root, path), path)
    for path in sources(root):
        image.add(os.path.join(root, path), os.path.join(root, path), needs_libraries=False)
    if tiny and not foreign:
        for name in read_list(os.path.join(here, "vm.d", "programs")):
            program = shutil.which(name)
            image.add(program, busybox().get(name, program))
    return tests + words, root


def where(here, foreign=None):
    """The variables by which a command finds the tests and the tool."""
    tests, programs = built(os.path.dirname(here), bool(foreign))
    tool = next(path for path in programs if os.path.basename(path) == "tidy-process")
    return {"TIDY_TESTS": tests[0], "TIDY_TOOL": tool}


@functools.cache
def built(root, is_foreign):
    tests, programs = artifacts(root, is_foreign)
    if len(tests) != 1:
        raise Failure(f"expected one integration test binary, found {tests}")
    return tests, programs


def artifacts(root, is_foreign):
    """([integration test binaries], [programs and examples]), built with all features; for the other processor without the
    one that is 70 crates more."""
    cargo, features = "cargo", ["--all-features"]
    if is_foreign:
        cargo, features = os.path.join(root, "ci", "vm.d", "cargo-arm64"), ["--features", "cli,sandbox,serde,tokio"]
    # Without a target named: examples would be built as tests then, not as programs.
    words = [cargo, "test", "--quiet", "--locked", "--no-run", *features, "--message-format=json-render-diagnostics"]
    messages = map(json.loads, output(*words, cwd=root).splitlines())
    built = [message for message in messages if message.get("executable")]
    tests = [message["executable"] for message in built if message["target"]["kind"] == ["test"]]
    programs = [message["executable"] for message in built if not message["profile"]["test"]]
    return tests, programs


def without_debug_information(root, path):
    """A copy: what debuggers want is nine tenths of it, and the machine holds all in memory."""
    small = os.path.join(root, "target", "vm-programs", os.path.basename(path))
    if not os.path.exists(small) or os.path.getmtime(small) < os.path.getmtime(path):
        os.makedirs(os.path.dirname(small), exist_ok=True)
        made = f"{small}.{os.getpid()}"
        output("strip", "--strip-debug", "-o", made, path)
        # Two machines are made at a time.
        os.rename(made, small)
    return small


def sources(root):
    """Some tests read the sources."""
    listed = output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=root)
    return [path for path in listed.split("\0") if os.path.isfile(os.path.join(root, path))]
