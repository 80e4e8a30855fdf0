"""The other roots: a small Debian with systemd, and that with container engines, each made once by debootstrap and kept as
an image of a disk."""

import glob
import os
import subprocess
import tempfile
import zlib

import engines
import kernels
from debian import bootstrap
from tools import Failure, cache, locked, needs, say

PACKAGES = ["systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "procps", "util-linux"]
# For the tests.
PACKAGES += ["e2fsprogs", "strace"]
# What would only make the boot longer, fail, or hide or remove what was copied in.
MASKED_UNITS = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "proc-sys-fs-binfmt_misc.automount",
    "serial-getty@ttyS0.service",
    "systemd-modules-load.service",
    "systemd-networkd-wait-online.service",
    "systemd-timesyncd.service",
    "tmp.mount",
]
# The size of the disk of each kind.
SIZES = {"systemd": "2G", "engines": "8G"}


def fetch(kind, suite, refresh):
    """Returns the path of the disk image, made first if it is not there."""
    with locked(f"{kind}-{suite}"):
        contents = [PACKAGES, engines.PACKAGES, engines.IMAGE] if kind == "engines" else [PACKAGES]
        disk = cache("roots", f"{kind}-{suite}-{zlib.crc32(repr(contents).encode()):08x}.ext4")
        if refresh or not os.path.exists(disk):
            make(kind, suite, disk)
        return disk


def make(kind, suite, disk):
    if os.geteuid() != 0:
        raise Failure(f"the {kind} root can only be made by root")
    needs("systemd")
    mirror, _ = kernels.mirrors()
    say(f"make the {kind} root: {suite}")
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        tree, image = os.path.join(work, "tree"), os.path.join(work, "image")
        bootstrap(suite, mirror, tree, PACKAGES, os.path.join(work, "log"))
        tester(tree)
        if kind == "engines":
            engines.add(suite, mirror, tree, work)
        words = ["mke2fs", "-q", "-t", "ext4", "-d", tree, image, SIZES[kind]]
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        for old in glob.glob(cache("roots", f"{kind}-{suite}-*.ext4")):
            os.remove(old)
        os.rename(image, disk)


def tester(tree):
    """An ordinary user with uid 1000, without a password."""
    words = ["useradd", "--root", tree, "--uid", "1000", "--create-home", "--shell", "/bin/bash", "tester"]
    subprocess.run(words, check=True)


def units(image, here):
    """What makes systemd run the command; added at each boot, so that the image of the disk need not know it."""
    for name in ("ci-vm.service", "ci-vm.target"):
        image.file(f"payload/etc/systemd/system/{name}", os.path.join(here, "vm.d", name))
    for name in MASKED_UNITS:
        image.symlink(f"payload/etc/systemd/system/{name}", "/dev/null")
    image.symlink("payload/etc/tmpfiles.d/tmp.conf", "/dev/null")
    image.text("payload/etc/hostname", "vm\n")
