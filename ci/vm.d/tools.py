"""What the other parts share: failures, the cache, packages of the host."""

import contextlib
import fcntl
import functools
import os
import shutil
import subprocess
import sys


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
def locked():
    """Two runs at once do not fetch the same twice."""
    with open(cache("lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def need(command, package):
    """Installs the Debian package that has a command, where that can be done."""
    if shutil.which(command):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Failure(f"{command} is missing: install the package {package}")
    say(f"install {package}")
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    quiet = {"env": environment, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "check": True}
    subprocess.run(["apt-get", "update", "-qq"], **quiet)
    subprocess.run(install, **quiet)


def output(*words, **options):
    """What a command prints; its failure is ours."""
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, **options).stdout


@functools.cache
def busybox():
    """busybox's applets and where they belong: {"sh": "bin/sh", ...}."""
    paths = output("busybox", "--list-full").split()
    return {os.path.basename(path): path for path in paths}
