"""The script that `pool --emit` prints for an engine: names of all kinds arrive, and the reports are read here."""

import subprocess

from nodes import HOME, TOOL

# What a shell, Python or an engine might take for something else.
ODD = [
    b"it's",
    b"two\nlines",
    b"DOS\r\nlines",
    b"\xff\x80",
    b"$(touch /mnt/injected) `touch /mnt/injected`",
    b'"; touch /mnt/injected #',
    b"{} {#} \\n\\",
    b"--help",
    # As long as GNU parallel has it over ssh.
    b"x" * 45_000,
    b"\\" * 29_000,
]

# Prints its argument, and leaves a process, by which that is found.
LEFT = "405.7"
WORDS = ["sh", "-c", f'setsid sleep {LEFT} >/dev/null 2>&1 & printf %s "$1"', "sh"]


def results_of(engine):
    return HOME / f"results-{engine}"


def emitted(head, engine, names=ODD, words=WORDS, options=("-t", "60")):
    """The script, as a file that every node sees."""
    subprocess.run(["rm", "-rf", results_of(engine)], check=True)
    file = HOME / "names"
    file.write_bytes(b"".join(name + b"\0" for name in names))
    before = ["pool", "-q", "-0", "-a", file, "--emit", engine, "--results", results_of(engine), *options]
    said = head.run([TOOL, *before, "--", *words], text=False)
    assert said.returncode == 0, said.stdout
    script = HOME / f"script-{engine}"
    script.write_bytes(said.stdout)
    return script


def emitted_crowd(head, engine, command, count, *options):
    """The script that runs this program with the numbers from 1 to `count`."""
    names = [str(number).encode() for number in range(1, count + 1)]
    return emitted(head, engine, names, [command], ["-k", "1", *options])


def check_reports(head, table, engine, count):
    page = head.run([TOOL, "report", results_of(engine)]).stdout
    table.check(f"its {count} reports are read back", f"{count} runs of {count} commands" in page)


def check(cluster, table, engine):
    """Once the engine has run it."""
    results = results_of(engine)
    files = [results / str(number) / "stdout" for number in range(1, len(ODD) + 1)]
    printed = [file.read_bytes() if file.exists() else None for file in files]
    intact = printed == ODD and not (HOME / "injected").exists()
    table.check(f"the script of pool --emit {engine} hands on names of any bytes", intact)
    check_reports(cluster.head, table, engine, len(ODD))
    table.row(f"the script of pool --emit {engine}", None, sum(len(node.strangers(LEFT)) for node in cluster.nodes))
