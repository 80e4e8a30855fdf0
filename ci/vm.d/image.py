"""The initramfs: a cpio archive of busybox, modules, the command and what was added."""

import contextlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile

from tools import Failure, busybox

MERGED = ("bin", "sbin", "lib", "lib64")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Image:
    """Files by path. What `add` brings goes below `prefix`: the other root gets it copied from there. A foreign one is for
    another processor, and has shared libraries of its own."""

    def __init__(self, prefix, is_foreign=False):
        self.prefix = prefix
        self.is_foreign = is_foreign
        self.entries = {}

    def put(self, path, kind, mode, content=b"", source=None):
        path = path.strip("/")
        parent = os.path.dirname(path)
        if parent and parent not in self.entries:
            self.put(parent, stat.S_IFDIR, 0o755)
        self.entries[path] = (kind | mode, content, source)

    def directory(self, path, mode=0o755):
        self.put(path, stat.S_IFDIR, mode)

    def symlink(self, path, target):
        self.put(path, stat.S_IFLNK, 0o777, os.fsencode(target))

    def text(self, path, content, mode=0o644):
        self.put(path, stat.S_IFREG, mode, content.encode())

    def file(self, path, source):
        self.put(path, stat.S_IFREG, stat.S_IMODE(os.stat(source).st_mode), source=source)

    def add(self, source, destination, needs_libraries=True):
        """A file or a directory of the host, and the shared libraries of the programs in it."""
        needs_libraries = needs_libraries and not self.is_foreign
        programs = []
        if os.path.isdir(source):
            for directory, names, files in os.walk(source):
                below = os.path.normpath(os.path.join(destination, os.path.relpath(directory, source)))
                self.directory(self.prefix + place(below))
                links = [name for name in names if os.path.islink(os.path.join(directory, name))]
                for name in files + links:
                    path = os.path.join(directory, name)
                    programs += self._add_one(path, os.path.join(below, name), follow=False)
        elif os.path.isfile(source):
            programs = self._add_one(source, destination, follow=True)
        else:
            raise Failure(f"{source}: no such file or directory")
        if programs and needs_libraries:
            for library in libraries(programs):
                self.library(library, "libraries/" if self.prefix else "")

    def library(self, path, prefix):
        self.file(prefix + place(path), os.path.realpath(path))

    def own(self, program, destination):
        """A program for the initramfs itself."""
        self.file(place(destination), program)
        for library in libraries([program]):
            self.library(library, "")

    def _add_one(self, source, destination, follow):
        """Returns the source in a list if it is an ELF file."""
        path = self.prefix + place(destination)
        if os.path.islink(source) and not follow:
            self.symlink(path, os.readlink(source))
        elif os.path.isfile(source):
            self.file(path, source)
            with open(source, "rb") as file:
                return [source] if file.read(4) == b"\x7fELF" else []
        return []

    @contextlib.contextmanager
    def archive(self):
        """The cpio archive, in a file without a name: nothing to clean up, however this ends."""
        with tempfile.TemporaryFile() as out:
            for number, (path, entry) in enumerate(self.entries.items(), 1):
                write_entry(out, number, path, *entry)
            write_entry(out, 0, "TRAILER!!!", 0, b"", None)
            out.flush()
            yield out


def write_entry(out, number, path, mode, content, source):
    """One entry in cpio's "newc" format, owned by root; name and data are padded to four bytes."""
    name = os.fsencode(path) + b"\0"
    size = os.path.getsize(source) if source else len(content)
    fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name), 0]
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    out.write(header + b"\0" * (-len(header) % 4))
    if source:
        with open(source, "rb") as file:
            shutil.copyfileobj(file, out)
    else:
        out.write(content)
    out.write(b"\0" * (-size % 4))


def place(path):
    """Where a path really is when /bin and its like are symbolic links into /usr."""
    path = os.path.normpath(path).strip("/")
    return "usr/" + path if path.split("/")[0] in MERGED else path


def libraries(programs):
    """Absolute paths of all shared libraries, the loader included."""
    result = subprocess.run(["ldd", *programs], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    missing = re.findall(r"^\s*(\S+) => not found", result.stdout, re.M)
    if missing:
        raise Failure(f"{' '.join(programs)}: shared libraries not found: {' '.join(missing)}")
    return sorted(set(re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", result.stdout, re.M)))


def machine(image, kernel, here, modules):
    """All that the machine has whatever it runs."""
    for name in MERGED:
        image.directory(f"usr/{name}")
        image.symlink(name, f"usr/{name}")
    for name in ("dev", "proc", "sys", "run", "scratch", "newroot", "etc", "usr/local/bin", "var"):
        image.directory(name)
    image.directory("root", 0o700)
    image.directory("tmp", 0o1777)
    image.directory("var/tmp", 0o1777)
    if not image.is_foreign:
        image.own(shutil.which("busybox"), "usr/bin/busybox")
        # It can give the command a process group of its own without a terminal.
        image.own(shutil.which("bash"), "usr/bin/bash")
    for name, path in busybox().items():
        if not any(f"usr/{directory}/{name}" in image.entries for directory in ("bin", "sbin")):
            image.symlink(place(path), "/usr/bin/busybox")
    image.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    image.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
    image.text("etc/hosts", "127.0.0.1 localhost vm\n::1 localhost\n")
    if os.path.exists("/etc/ld.so.cache") and not image.is_foreign:
        image.file("etc/ld.so.cache", "/etc/ld.so.cache")
    names = read_list(os.path.join(here, "vm.d", "modules")) + modules
    more = os.path.join(here, "vm.d", f"modules-{kernel.architecture}")
    names += read_list(more) if os.path.exists(more) else []
    for number, (name, contents) in enumerate(kernel.modules(names)):
        image.put(f"modules/{number:03}-{name}.ko", stat.S_IFREG, 0o644, contents)
    image.file("init", os.path.join(here, "vm.d", "init"))
    image.file(image.prefix + "ci-vm/run", os.path.join(here, "vm.d", "run"))


def read_list(path):
    """The first words of the lines of a list, without comments."""
    return [words[0] for words in lines(path)]


def read_packages(path):
    """The second words: packages that programs are in."""
    return [words[1] for words in lines(path)]


def lines(path):
    with open(path) as file:
        return [words for words in (line.partition("#")[0].split() for line in file) if words]


def command(image, words, environment, directory):
    """The command as a shell script, so that nothing is lost in quoting."""
    variables = {"PATH": PATH, "HOME": "/root"} | environment
    script = ["exec </dev/null >&7 2>&8 7>&- 8>&- 9>&-"]
    script += [f"export {key}={shlex.quote(value)}" for key, value in variables.items()]
    script += [f"cd {shlex.quote(directory)} || exit 126", f"exec {shlex.join(words)}"]
    image.text(image.prefix + "ci-vm/cmd", "\n".join(script) + "\n")
