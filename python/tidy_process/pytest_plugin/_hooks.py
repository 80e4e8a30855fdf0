"""The hooks around tests and fixtures, where tests are run."""

from __future__ import annotations

import re
from typing import Any, Dict, Generator, List, Optional

import pytest

from ._ledger import Ledger, Owner
from ._left import Leak
from ._summary import LEAKS, PROPERTY, ROWS

# The scopes whose end `keep` can wait for, with what a test has of them.
SCOPES: Dict[str, Any] = {"class": pytest.Class, "module": pytest.Module, "session": pytest.Session}


class Hooks:
    """Tells the ledger whose turn it is, and tests what they have left."""

    def __init__(self, config: pytest.Config, ledger: Ledger) -> None:
        self._config, self._ledger = config, ledger
        ledger.root = str(config.rootpath)
        self._test: Optional[Owner] = None
        # Whether a test has asked for it: looking for the ends of scopes costs as much as the rest.
        self._keeps = False
        # What fixtures have left that ended in this teardown.
        self._found: List[Leak] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        if self._ledger.is_ours():
            self._found = []
            self._test = owner = Owner("the test", item.nodeid)
            self._ledger.begin(owner)
            _apply_markers(self._ledger, owner, item)
            self._keeps |= owner.keeper is not None
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: Optional[pytest.Item]
    ) -> Generator[None, Any, Any]:
        if self._ledger.is_ours():
            self._ledger.follow("ended later, by itself")
        try:
            result = yield
        except BaseException:
            # That is the outcome; what was left is in the summary.
            self._end(item, nextitem)
            raise
        if self._end(item, nextitem) and self._ledger.mode == "fail":
            texts = [leak.text() for leak in self._found]
            pytest.fail("\n".join(texts), pytrace=False)
        return result

    def _end(self, item: pytest.Item, nextitem: Optional[pytest.Item]) -> bool:
        if not self._ledger.is_ours() or self._test is None:
            return False
        self._test = None
        found = [self._ledger.end_test()]
        for key in _ended_scopes(item, nextitem) if self._keeps else ():
            found.append(self._ledger.end_lasting(key, item.nodeid))
        self._found += [leak for leak in found if leak is not None]
        leaks = list(self._found)
        item.user_properties += [(PROPERTY, leak.text()) for leak in leaks]
        return bool(leaks)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function" or not self._ledger.is_ours():
            return (yield)
        self._ledger.begin(self._ledger.lasting(id(fixturedef), _name(fixturedef)))
        try:
            return (yield)
        finally:
            if self._ledger.is_ours():
                self._ledger.suspend()
                self._ledger.forget_clean(id(fixturedef))

    def pytest_fixture_post_finalizer(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> None:
        if fixturedef.scope == "function" or not self._ledger.is_ours():
            return
        name = _name(fixturedef)
        test = self._test.test if self._test else ""
        found = self._ledger.end_lasting(id(fixturedef), test)
        if found is not None:
            self._found.append(found)
        self._ledger.follow(f"outlived its test, ended with {name}")

    # After the runner's, which tears down what an interrupted run has left set up.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._ledger.is_ours():
            return
        found = self._ledger.end_session()
        if found and self._ledger.mode == "fail" and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        rows = [leak.told() for leak in self._ledger.leaks]
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[ROWS] = rows
        else:
            self._config.stash[LEAKS] += self._ledger.leaks


def _name(fixturedef: pytest.FixtureDef[Any]) -> str:
    name = fixturedef.argname
    for kind in ("setup_module", "setup_class", "setUpModule", "setUpClass"):
        # pytest makes fixtures of them.
        if kind in name:
            return f"{kind} of {fixturedef.baseid}"
    return f"{fixturedef.scope} fixture {name}"


def _ended_scopes(item: pytest.Item, nextitem: Optional[pytest.Item]) -> List[object]:
    """The keys of what ends between the two tests."""
    ended: List[object] = []
    for scope, kind in SCOPES.items():
        own = item.getparent(kind)
        if own is not None and (nextitem is None or nextitem.getparent(kind) is not own):
            ended.append((scope, own.nodeid))
    return ended


def _apply_markers(ledger: Ledger, owner: Owner, item: pytest.Item) -> None:
    for mark in item.iter_markers("tidy"):
        rest = set(mark.kwargs) - {"allow", "keep"}
        if mark.args or rest:
            raise pytest.UsageError(f"{item.nodeid}: the marker tidy takes allow= and keep= only")
        given = mark.kwargs.get("allow", ())
        expressions = [given] if isinstance(given, str) else list(given)
        owner.allowed = [*owner.allowed, *(re.compile(one) for one in expressions)]
        keep = mark.kwargs.get("keep")
        if keep is not None and owner.keeper is None:
            owner.keeper = _keeper(ledger, item, keep)


def _keeper(ledger: Ledger, item: pytest.Item, keep: str) -> Optional[Owner]:
    """None for a function's class: as for fixtures of that scope, it ends with the test."""
    if keep not in SCOPES:
        known = ", ".join(SCOPES)
        raise pytest.UsageError(f"{item.nodeid}: keep is one of {known}, not {keep!r}")
    scope = item.getparent(SCOPES[keep])
    if scope is None:
        return None
    what = f"tests kept for the {keep} {scope.nodeid}".rstrip()
    return ledger.lasting((keep, scope.nodeid), what)
