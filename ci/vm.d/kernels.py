"""Debian's kernels: fetched (see packages.py), and unpacked without being installed."""

import glob
import lzma
import os
import shutil
import tempfile

import packages
from packages import KEYRING, mirrors  # noqa: F401 (for those who use kernels)
from tools import Failure, cache, say

# The cloud kernel for arm64 lacks what QEMU's board has.
PACKAGES = {"amd64": "linux-image-cloud-amd64", "arm64": "linux-image-arm64"}
SUITES = ["bookworm", "bookworm-updates", "trixie", "trixie-updates", "trixie-backports", "sid"]
SECURITY_SUITES = ["bookworm-security", "trixie-security"]

# Each name, the processor, and how the versions begin that it stands for; backports to older releases do not count.
KERNELS = {
    "5.10": ("amd64", "5.10."),
    "6.1": ("amd64", "6.1."),
    "6.12": ("amd64", "6.12."),
    "newest": ("amd64", ""),
    "arm64": ("arm64", "6.12."),
}
# Of a Debian that mirrors drop some day: fetched only if it is asked for.
OLD = {"5.10": "bullseye"}


class Kernel:
    """One kernel in the cache: boot image, modules, version of the package."""

    def __init__(self, name):
        self.name = name
        self.architecture, self.begin = KERNELS[name]
        self.directory = cache("kernels", name)

    def version(self):
        try:
            with open(os.path.join(self.directory, "version")) as file:
                return file.read().strip()
        except FileNotFoundError:
            return None

    def _one(self, *patterns):
        found = [path for pattern in patterns for path in glob.glob(os.path.join(self.directory, pattern))]
        # /lib may be a link into /usr.
        found = sorted({os.path.realpath(path) for path in found})
        if len(found) != 1:
            raise Failure(f"{self.directory}: expected one of {' '.join(patterns)}, found {found}")
        return found[0]

    def image(self):
        return self._one("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz")

    def _modules(self):
        return self._one("lib/modules/*", "usr/lib/modules/*")

    def release(self):
        return os.path.basename(self._modules())

    def modules(self, names):
        """[(name, contents)] in the order in which they can be loaded; what is built in is left out."""
        directory = self._modules()
        found = glob.glob(os.path.join(directory, "kernel", "**", "*.ko*"), recursive=True)
        files = {module_name(path): path for path in found}
        with open(os.path.join(directory, "modules.builtin")) as file:
            builtin = {module_name(line.strip()) for line in file}
        ordered = {}

        def visit(name):
            if name in builtin or name in ordered:
                return
            if name not in files:
                raise Failure(f"the kernel {self.name} has no module {name}")
            contents = read_module(files[name])
            for dependency in dependencies(contents):
                visit(dependency)
            ordered[name] = contents

        for name in names:
            visit(name.replace("-", "_"))
        return list(ordered.items())


def module_name(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def read_module(path):
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rb") as file:
        return file.read()


def dependencies(module):
    """A module's own list: there is no modules.dep before an installation."""
    listed = module.split(b"\0depends=", 1)[1].split(b"\0", 1)[0].decode()
    return [name.replace("-", "_") for name in listed.split(",") if name]


def show():
    for name in KERNELS:
        kernel = Kernel(name)
        version = kernel.version()
        print(f"{name:8} {version:22} {kernel.release()}" if version else f"{name:8} not fetched")
    return 0


def fetch(names, refresh):
    """Downloads those that are missing; with refresh also those of which there is a newer one."""
    wanted = [Kernel(name) for name in names if refresh or not Kernel(name).version()]
    for architecture, package in PACKAGES.items():
        kernels = [kernel for kernel in wanted if kernel.architecture == architecture]
        if not kernels:
            continue
        apt = packages.Apt([architecture], SUITES + [OLD[kernel.name] for kernel in kernels if kernel.name in OLD], SECURITY_SUITES)
        versions = apt.versions(package)
        for kernel in kernels:
            matching = [version for version in versions if version.startswith(kernel.begin)]
            if kernel.begin:
                matching = [version for version in matching if "~bpo" not in version]
            if not matching:
                raise Failure(f"the mirror has no kernel {kernel.name}, only {versions}")
            newest = packages.newest(matching)
            if newest != kernel.version():
                unpack(apt, kernel, package, newest)


def unpack(apt, kernel, package, version):
    say(f"fetch the kernel {kernel.name}: {version}")
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        tree = os.path.join(work, "tree")
        parts = [f"{part}={version}" for part in apt.closure(package, version)]
        packages.unpack(apt.download(parts, work), tree)
        with open(os.path.join(tree, "version"), "w") as file:
            file.write(version + "\n")
        shutil.rmtree(kernel.directory, ignore_errors=True)
        os.rename(tree, cache("kernels", kernel.name))
