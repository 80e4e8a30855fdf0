"""Runs CPython's own tests of subprocess with ``subprocess.Popen`` replaced by this package's.

The last line is JSON: how many ran, and the names of those that failed, with their last lines.
"""

from __future__ import annotations

import json
import sys
import unittest


class Result(unittest.TestResult):
    """Keeps what has failed, and says on stderr what runs, for a run that hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        print(test.id(), file=sys.stderr, flush=True)

    def note(self, test: unittest.TestCase, error: object) -> None:
        kind, value, _ = error  # type: ignore[misc]
        # A subtest is named by its test.
        name = getattr(test, "test_case", test).id().split(" ")[0]
        self.bad[".".join(name.split(".")[-2:])] = f"{kind.__name__}: {value}"[:300]

    def addError(self, test: unittest.TestCase, err: object) -> None:  # type: ignore[override]
        self.note(test, err)

    addFailure = addError  # type: ignore[assignment]

    def addSubTest(self, test, subtest, err) -> None:  # type: ignore[no-untyped-def]
        if err is not None:
            self.note(subtest, err)  # type: ignore[arg-type]


def main() -> None:
    if "plain" not in sys.argv[1:]:
        import tidy_process

        tidy_process.install()
    from test import support, test_subprocess  # type: ignore[import-not-found]

    support.use_resources = []
    names = [name for name in sys.argv[1:] if name != "plain"]
    loader = unittest.defaultTestLoader
    suite = (
        loader.loadTestsFromNames(names, test_subprocess)
        if names
        else loader.loadTestsFromModule(test_subprocess)
    )
    result = Result()
    suite.run(result)
    print(json.dumps({"ran": result.testsRun, "skipped": len(result.skipped), "bad": result.bad}))


if __name__ == "__main__":
    main()
