"""The virtual machine: started, listened to, and never left behind."""

import os
import re
import selectors
import subprocess
import sys
import tempfile
import time

from tools import Failure, output, say

DISK_BYTES = 512 << 20
CONSOLE_LINES = 40
# Time for the machine to go down after the command has ended.
GOODBYE = 5


# QEMU's program and board for each processor, with all that it can emulate: page tables of five levels and the real
# algorithm of pointer authentication would only cost time.
BOARDS = {
    "amd64": ("qemu-system-x86_64", "pc", "max,la57=off", "ttyS0"),
    "arm64": ("qemu-system-aarch64", "virt", "max,pauth-impdef=on", "ttyAMA0"),
}


class Machine:
    def __init__(self, kernel, initrd, root, options):
        self.kernel, self.initrd, self.root, self.options = kernel.image(), initrd, root, options
        self.program, self.board, self.processor, self.terminal = BOARDS[kernel.architecture]
        self.started = time.monotonic()
        self.booted = None
        self.status = None
        self.news = b""

    def run(self):
        """Returns the command's status."""
        with tempfile.TemporaryFile() as scratch, tempfile.TemporaryFile() as swap, self._console() as console:
            for disk in (scratch, swap):
                disk.truncate(DISK_BYTES)
            make = ["mke2fs", "-q", "-F", "-t", "ext4", fd_path(scratch)]
            subprocess.run(make, pass_fds=[scratch.fileno()], check=True)
            with Ports() as ports:
                files = [self.initrd, scratch, swap, console]
                words = self._words(ports, *map(fd_path, files))
                fds = [file.fileno() for file in files] + ports.writers()
                qemu = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=fds, start_new_session=True)
                try:
                    ports.close_writers()
                    self._listen(ports)
                finally:
                    qemu.kill()
                    qemu.wait()
            if self.status is None:
                raise Failure(self._what_happened(console))
            return self.status

    def _console(self):
        return open(self.options.console, "wb+") if self.options.console else tempfile.TemporaryFile()

    def _words(self, ports, initrd, scratch, swap, console):
        options = self.options
        append = f"console={self.terminal} quiet panic=-1 oops=panic mitigations=off nowatchdog cgroup_no_v1=all"
        if self.root:
            append += " systemd.unit=ci-vm.target"
        # The parent's death ends it, even if that comes by SIGKILL.
        words = ["setpriv", "--pdeathsig", "KILL", self.program, "-accel", accelerator(self.program)]
        words += ["-machine", self.board, "-cpu", self.processor, "-smp", str(options.cpus), "-m", str(options.mem)]
        words += ["-nodefaults", "-no-user-config", "-display", "none"]
        words += [] if options.reboots else ["-no-reboot"]
        words += ["-kernel", self.kernel, "-initrd", initrd, "-append", append]
        words += ["-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"]
        words += ["-device", "virtio-serial-pci"]
        for number, writer in enumerate(ports.writers(), 1):
            words += ["-chardev", f"file,id=port{number},path=/dev/fd/{writer}"]
            words += ["-device", f"virtserialport,chardev=port{number},nr={number}"]
        words += drive("scratch", scratch) + drive("swap", swap)
        if self.root:
            words += drive("root", self.root, ",snapshot=on")
        return words

    def _listen(self, ports):
        """Until the machine is gone, or the time is up."""
        deadline = self.started + self.options.timeout
        while ports.open:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            for name, data in ports.read(left):
                if name == "news":
                    self._hear(data)
                else:
                    write_all(1 if name == "out" else 2, data)
                if self.status is not None:
                    deadline = min(deadline, time.monotonic() + GOODBYE)

    def _hear(self, data):
        self.news += data
        *lines, self.news = self.news.split(b"\n")
        for line in lines:
            if line == b"up":
                self.booted = time.monotonic() - self.started
                if self.options.verbose:
                    say(f"booted in {self.booted:.1f} s")
            elif line.startswith(b"status "):
                self.status = int(line.split()[1])

    def _what_happened(self, console):
        took = time.monotonic() - self.started
        limit = self.options.timeout
        when = "while the command ran" if self.booted else "before it had booted"
        what = f"ran out of time ({limit:g} s)" if took >= limit else f"died after {took:.1f} s"
        console.seek(0)
        lines = console.read().replace(b"\r", b"").decode(errors="replace").splitlines()
        tail = "".join(f"\n  | {line}" for line in lines[-CONSOLE_LINES:])
        return f"the machine {what}, {when}; the end of its console:{tail or ' nothing'}"


def accelerator(program):
    """Before QEMU 8.1 a processor could run code while another was changing it (the kernel does so at boot and when it
    first limits something), and crash of it: there all processors take turns on one thread."""
    version = re.search(r"version (\d+)\.(\d+)", output(program, "--version"))
    multi = tuple(map(int, version.groups())) >= (8, 1)
    return "tcg,thread=multi" if multi else "tcg,thread=single"


class Ports:
    """Three pipes from the machine: the command's output, its errors, and news about it."""

    def __init__(self):
        self.open = {name: os.pipe() for name in ("out", "err", "news")}
        self.selector = selectors.DefaultSelector()
        for name, (reader, _) in self.open.items():
            self.selector.register(reader, selectors.EVENT_READ, name)
        self.writing = [writer for _, writer in self.open.values()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close_writers()
        for reader, _ in self.open.values():
            os.close(reader)
        self.selector.close()

    def writers(self):
        return self.writing

    def close_writers(self):
        """Only the machine holds them then, so its end is the end of the pipes."""
        for writer in self.writing:
            os.close(writer)
        self.writing = []

    def read(self, timeout):
        """[(name, data)] of what has come; a pipe that has ended is closed."""
        found = []
        for key, _ in self.selector.select(timeout):
            data = os.read(key.fd, 1 << 16)
            if data:
                found.append((key.data, data))
            else:
                self.selector.unregister(key.fd)
                os.close(key.fd)
                del self.open[key.data]
        return found


def fd_path(file):
    return f"/dev/fd/{file.fileno()}"


def drive(name, path, more=""):
    """A virtio disk; the order of these is that of /dev/vda, vdb and vdc."""
    return [
        "-drive", f"if=none,id={name},format=raw,cache=unsafe,file={path}{more}",
        "-device", f"virtio-blk-pci,drive={name},serial={name}",
    ]  # fmt: skip


def write_all(fd, data):
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BrokenPipeError:
        sys.exit(128 + 13)
