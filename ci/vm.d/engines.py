"""Docker and Podman in a root with systemd, and the image that their containers are made of."""

import os
import shutil
import subprocess

from debian import bootstrap, logged
from tools import output

# Docker's client is a package of its own from Debian 13 on; runc is Docker's runtime, crun Podman's. --init wants
# tini and catatonit, rootless containers newuidmap.
# Where the kernel has AppArmor Docker 20.10 starts nothing without its parser.
PACKAGES = ["docker.io", "docker-cli?", "runc", "crun", "tini", "podman", "catatonit", "uidmap", "kmod", "apparmor"]
# What an image has beside the essential packages: pgrep.
IMAGE = ["procps"]
# Nothing of theirs is needed at boot: ci/engines.d/rows starts what it wants.
DISABLED = ["docker.service", "docker.socket", "containerd.service", "podman.service", "podman.socket"]
DISABLED += ["podman-auto-update.service", "podman-auto-update.timer", "podman-restart.service", "podman-clean-transient.service"]
MODULES = ["overlay"]
# No networks: the kernel gets no modules for bridges, and what is shown here needs none.
DAEMON = '{ "bridge": "none", "iptables": false, "ip6tables": false }\n'
# What only people read.
LEFT_OUT = ["./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/info", "./var/cache/apt", "./var/lib/apt"]

INSTALL = r"""
mount -t proc proc /proc
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || exit
packages=
for package; do
  # A question mark: where there is such a package.
  case $package in *\?) package=${package%\?}; apt-cache show "$package" >/dev/null 2>&1 || continue ;; esac
  packages="$packages $package"
done
apt-get install -y -qq --no-install-recommends $packages && apt-get clean && rm /usr/sbin/policy-rc.d &&
  for unit in $DISABLED; do systemctl --quiet disable "$unit" 2>/dev/null || :; done
"""


def add(suite, mirror, tree, work):
    # How this machine reaches mirrors (proxies, what it takes for valid) holds in there, too.
    settings = [line for line in output("apt-config", "dump").splitlines() if line.startswith("Acquire")]
    configuration = os.path.join(tree, "etc", "apt", "apt.conf.d", "99-of-the-host")
    with open(configuration, "w") as file:
        file.write("\n".join(settings) + "\n")
    disabled = "DISABLED=" + " ".join(DISABLED)
    logged(["chroot", tree, "env", disabled, "sh", "-c", INSTALL, "sh", *PACKAGES], os.path.join(work, "apt.log"))
    os.remove(configuration)
    os.makedirs(os.path.join(tree, "etc", "docker"), exist_ok=True)
    with open(os.path.join(tree, "etc", "docker", "daemon.json"), "w") as file:
        file.write(DAEMON)
    subordinate(tree)
    container_image(suite, mirror, os.path.join(tree, "srv", "image.tar"), work)


def subordinate(tree):
    """Ranges of ids for containers of the ordinary user, and for the daemon's own user namespace."""
    for name in ("subuid", "subgid"):
        with open(os.path.join(tree, "etc", name), "w") as file:
            file.write("tester:100000:65536\ndockremap:300000:65536\n")


def container_image(suite, mirror, path, work):
    """What `docker import` and `podman import` take: a tar archive of a root."""
    tree = os.path.join(work, "container")
    bootstrap(suite, mirror, tree, IMAGE, os.path.join(work, "container.log"))
    words = ["tar", "-C", tree, "-cf", path, "--numeric-owner", *(f"--exclude={name}/*" for name in LEFT_OUT), "."]
    subprocess.run(words, check=True)
    shutil.rmtree(tree)
