"""The script that `pool --emit` prints for an engine: names of all kinds arrive, and the reports are read here."""

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
]

# Prints its argument, and leaves a process, by which that is found.
LEFT = "405.7"
WORDS = ["sh", "-c", f'setsid sleep {LEFT} >/dev/null 2>&1 & printf %s "$1"', "sh"]


def results_of(engine):
    return HOME / f"results-{engine}"


def emitted(head, engine):
    """The script, as a file that every node sees."""
    names = HOME / "names"
    names.write_bytes(b"".join(name + b"\0" for name in ODD))
    words = ["pool", "-q", "-0", "-a", names, "--emit", engine, "--results", results_of(engine), "-t", "60"]
    said = head.run([TOOL, *words, "--", *WORDS], text=False)
    assert said.returncode == 0, said.stdout
    script = HOME / f"script-{engine}"
    script.write_bytes(said.stdout)
    return script


def check(cluster, table, engine):
    """Once the engine has run it."""
    results = results_of(engine)
    files = [results / str(number) / "stdout" for number in range(1, len(ODD) + 1)]
    printed = [file.read_bytes() if file.exists() else None for file in files]
    intact = printed == ODD and not (HOME / "injected").exists()
    table.check(f"the script of pool --emit {engine} hands on names of any bytes", intact)
    page = cluster.head.run([TOOL, "report", results]).stdout
    table.check("its reports are read back", f"{len(ODD)} runs of {len(ODD)} commands" in page)
    table.row(f"the script of pool --emit {engine}", None, sum(len(node.strangers(LEFT)) for node in cluster.nodes))
