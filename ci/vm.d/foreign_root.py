"""The programs of another processor, as the machine has them: Debian's packages, unpacked in the cache."""

import os
import shutil
import stat
import tempfile
import zlib

import packages as debian
from image import place, read_packages
from tools import cache, say

SUITES, SECURITY_SUITES = ["trixie", "trixie-updates"], ["trixie-security"]
# What the initramfs itself needs.
PACKAGES = ["busybox-static", "bash", "libc6", "libgcc-s1"]
# What no test needs; all is held in memory.
LEFT_OUT = ("usr/share/", "var/", "usr/lib/systemd/", "boot/", "usr/include/")


def fetch(architecture, here):
    """Returns the directory of the programs, made first if it is not there."""
    packages = sorted(set(PACKAGES) | set(read_packages(os.path.join(here, "vm.d", "programs"))))
    tree = cache("roots", f"{architecture}-{zlib.crc32(repr(packages).encode()):08x}")
    if os.path.exists(tree):
        return tree
    apt = debian.Apt([architecture], SUITES, SECURITY_SUITES)
    say(f"fetch the programs of {architecture}")
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        made = os.path.join(work, "tree")
        debian.unpack(apt.download_all(packages, os.path.join(work, "packages")), made)
        os.rename(made, tree)
    return tree


def add(image, tree):
    """All of it but what only takes room."""
    for directory, names, files in os.walk(tree):
        below = os.path.relpath(directory, tree)
        names[:] = [name for name in names if not f"{below}/{name}/".removeprefix("./").startswith(LEFT_OUT)]
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        for name in files + links:
            source = os.path.join(directory, name)
            path = place(os.path.join(below, name))
            if os.path.islink(source):
                # Of the root: those into /usr the machine has anyway.
                if below != ".":
                    image.symlink(path, os.readlink(source))
            elif stat.S_ISREG(os.lstat(source).st_mode):
                image.file(path, source)


def which(tree, name):
    return shutil.which(name, path=os.pathsep.join(os.path.join(tree, "usr", place) for place in ("sbin", "bin")))
