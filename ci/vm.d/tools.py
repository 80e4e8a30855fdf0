"""What the other parts share: failures, the cache, packages of the host."""

import contextlib
import fcntl
import functools
import os
import subprocess
import sys

CI = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


class Failure(Exception):
    """Something of ours that did not work: status 125."""


def say(text):
    print(f"ci/vm: {text}", file=sys.stderr, flush=True)


def cache(*names):
    """A path in the cache; its directory is made."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    base = os.environ.get("TIDY_VM_CACHE") or os.path.join(home, "tidy-process", "vm")
    path = os.path.join(os.path.abspath(base), *names)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


@contextlib.contextmanager
def locked(what):
    """Two runs at once do not fetch the same twice; what others fetch is not waited for."""
    with open(cache(f"lock-{what}"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def needs(*whats):
    """Installs the Debian packages of these lists in ci/need, where that can be done; it names all that are missing."""
    if subprocess.run([os.path.join(CI, "need"), *whats], stdin=subprocess.DEVNULL).returncode != 0:
        raise Failure("what is missing stands above")


def output(*words, **options):
    """What a command prints; its failure is ours."""
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, **options).stdout


@functools.cache
def busybox():
    """busybox's applets and where they belong: {"sh": "bin/sh", ...}."""
    paths = output("busybox", "--list-full").split()
    return {os.path.basename(path): path for path in paths}
