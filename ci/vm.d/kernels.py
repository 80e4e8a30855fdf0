"""Debian's kernels: found and downloaded by apt, with its authentication, and unpacked without being installed."""

import functools
import glob
import lzma
import os
import shutil
import subprocess
import tempfile

from tools import Failure, cache, output, say

PACKAGE = "linux-image-cloud-amd64"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITES = ["bookworm", "bookworm-updates", "trixie", "trixie-updates", "trixie-backports", "sid"]
SECURITY_SUITES = ["bookworm-security", "trixie-security"]

# Each name and how the versions begin that it stands for; backports of 6.12 to older releases do not count.
KERNELS = {"5.10": "5.10.", "6.1": "6.1.", "6.12": "6.12.", "newest": ""}
# Of a Debian that mirrors drop some day: fetched only if it is asked for.
OLD = {"5.10": "bullseye"}


class Kernel:
    """One kernel in the cache: boot image, modules, version of the package."""

    def __init__(self, name):
        self.name = name
        self.directory = cache("kernels", name)

    def version(self):
        try:
            with open(os.path.join(self.directory, "version")) as file:
                return file.read().strip()
        except FileNotFoundError:
            return None

    def _one(self, *patterns):
        found = [path for pattern in patterns for path in glob.glob(os.path.join(self.directory, pattern))]
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
    wanted = [name for name in names if refresh or not Kernel(name).version()]
    if not wanted:
        return
    apt = Apt([OLD[name] for name in wanted if name in OLD])
    versions = apt.versions(PACKAGE)
    for name in wanted:
        matching = [version for version in versions if version.startswith(KERNELS[name])]
        if KERNELS[name]:
            matching = [version for version in matching if "~bpo" not in version]
        if not matching:
            raise Failure(f"the mirror has no kernel {name}, only {versions}")
        newest = max(matching, key=functools.cmp_to_key(compare))
        if newest != Kernel(name).version():
            unpack(apt, Kernel(name), newest)


def compare(a, b):
    lower = subprocess.run(["dpkg", "--compare-versions", a, "lt", b]).returncode == 0
    return -1 if lower else int(a != b)


def unpack(apt, kernel, version):
    say(f"fetch the kernel {kernel.name}: {version}")
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        tree = os.path.join(work, "tree")
        for package in apt.download(apt.closure(PACKAGE, version), version, work):
            subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
        with open(os.path.join(tree, "version"), "w") as file:
            file.write(version + "\n")
        shutil.rmtree(kernel.directory, ignore_errors=True)
        os.rename(tree, cache("kernels", kernel.name))


def mirrors():
    """Where this machine's apt gets Debian and its security updates: (URL, URL)."""
    query = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"]
    found = output(*query)
    if "Debian|" not in found:
        # Origins are known only after an update.
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        found = output(*query)
    lines = [line.split("|") for line in found.splitlines()]
    url = {label: url for origin, label, url in lines if origin == "Debian"}
    if "Debian" not in url:
        raise Failure("apt's sources name no mirror of Debian: the kernels come from there")
    return url["Debian"], url.get("Debian-Security")


class Apt:
    """apt with sources and state of its own, and the machine's configuration for all else (proxies, credentials)."""

    def __init__(self, more):
        main, security = mirrors()
        sources = [(main, suite) for suite in SUITES + more]
        sources += [(security, suite) for suite in SECURITY_SUITES if security]
        with open(cache("apt", "sources.list"), "w") as file:
            for url, suite in sources:
                file.write(f"deb [arch=amd64 signed-by={KEYRING}] {url} {suite} main\n")
        open(cache("apt", "status"), "w").close()
        for directory in ("state/lists", "cache/archives"):
            os.makedirs(cache("apt", directory, "partial"), exist_ok=True)
        settings = {
            "Dir::Etc::SourceList": cache("apt", "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": cache("apt", "state"),
            "Dir::State::status": cache("apt", "status"),
            "Dir::Cache": cache("apt", "cache"),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "",
            "APT::Update::Error-Mode": "any",
            "Acquire::Retries": "3",
        }
        self.options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        say("look for kernels")
        try:
            output("apt-get", *self.options, "update", "-qq")
        except subprocess.CalledProcessError:
            hint = f"a missing key (NO_PUBKEY) is in a newer debian-archive-keyring package, which makes {KEYRING}"
            raise Failure(f"apt cannot read the lists of {', '.join(SUITES)}; {hint}") from None

    def versions(self, package):
        lines = output("apt-cache", *self.options, "madison", package).splitlines()
        return [line.split("|")[1].strip() for line in lines if line.endswith("Packages")]

    def closure(self, package, version):
        """The package and those of the same version that it depends on: newer kernels come in several parts."""
        found, todo = [], [package]
        while todo:
            name = todo.pop()
            found.append(name)
            text = output("apt-cache", *self.options, "show", f"{name}={version}")
            for line in text.splitlines():
                if line.startswith("Depends: "):
                    parts = [part.strip() for part in line.removeprefix("Depends: ").split(",")]
                    same = [part.split()[0] for part in parts if part.endswith(f"(= {version})")]
                    todo += [name for name in same if name not in found + todo]
        return found

    def download(self, packages, version, directory):
        """apt checks each package against the signed lists."""
        wanted = [f"{package}={version}" for package in packages]
        output("apt-get", *self.options, "download", "-qq", *wanted, cwd=directory)
        return glob.glob(os.path.join(directory, "*.deb"))
