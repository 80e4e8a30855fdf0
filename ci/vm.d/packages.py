"""Debian's packages: found and downloaded by apt, with its authentication, and unpacked without being installed."""

import functools
import glob
import os
import subprocess

from tools import Failure, cache, output, say

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Apt:
    """apt with sources and state of its own, and the machine's configuration for all else (proxies, credentials). What
    `status` has counts as installed; by default nothing."""

    def __init__(self, architectures, suites, security_suites, status=None):
        self.architectures = architectures
        main, security = mirrors()
        sources = [(main, suite) for suite in suites]
        sources += [(security, suite) for suite in security_suites if security]
        base = "apt-" + "-".join(architectures)
        with open(cache(base, "sources.list"), "w") as file:
            for url, suite in sources:
                file.write(f"deb [arch={','.join(architectures)} signed-by={KEYRING}] {url} {suite} main\n")
        open(cache(base, "status"), "w").close()
        for directory in ("state/lists", "cache/archives"):
            os.makedirs(cache(base, directory, "partial"), exist_ok=True)
        settings = {
            "Dir::Etc::SourceList": cache(base, "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": cache(base, "state"),
            "Dir::State::status": status or cache(base, "status"),
            "Dir::Cache": cache(base, "cache"),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "APT::Architecture": architectures[0],
            "APT::Sandbox::User": "",
            "APT::Update::Error-Mode": "any",
            "APT::Install-Recommends": "false",
            "Acquire::Retries": "3",
        }
        self.options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        self.options += [word for name in architectures for word in ("-o", f"APT::Architectures::={name}")]
        say(f"look for packages of {', '.join(suites)}")
        try:
            output("apt-get", *self.options, "update", "-qq")
        except subprocess.CalledProcessError:
            hint = f"a missing key (NO_PUBKEY) is in a newer debian-archive-keyring package, which makes {KEYRING}"
            raise Failure(f"apt cannot read the lists of {', '.join(suites)}; {hint}") from None

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

    def download(self, packages, directory):
        """[paths] of these packages alone; apt checks each against the signed lists."""
        output("apt-get", *self.options, "download", "-qq", *packages, cwd=directory)
        return glob.glob(os.path.join(directory, "*.deb"))

    def download_all(self, packages, directory):
        """[paths] of these packages and of all that they need and that is not installed."""
        here = ["-o", f"Dir::Cache::archives={directory}"]
        os.makedirs(os.path.join(directory, "partial"), exist_ok=True)
        output("apt-get", *self.options, *here, "install", "--download-only", "-y", "-qq", *packages)
        return glob.glob(os.path.join(directory, "*.deb"))


def newest(versions):
    return max(versions, key=functools.cmp_to_key(compare))


def compare(a, b):
    lower = subprocess.run(["dpkg", "--compare-versions", a, "lt", b]).returncode == 0
    return -1 if lower else int(a != b)


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
        raise Failure("apt's sources name no mirror of Debian: kernels and what else is fetched come from there")
    return url["Debian"], url.get("Debian-Security")


def unpack(packages, tree):
    """Unpacks packages as they would be installed; nothing of them is run."""
    for name in ("bin", "sbin", "lib", "lib64"):
        os.makedirs(os.path.join(tree, "usr", name), exist_ok=True)
        if not os.path.lexists(os.path.join(tree, name)):
            os.symlink(f"usr/{name}", os.path.join(tree, name))
    for package in packages:
        files = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", tree], stdin=files.stdout, check=True)
        files.stdout.close()
        if files.wait() != 0:
            raise Failure(f"{package} cannot be unpacked")
