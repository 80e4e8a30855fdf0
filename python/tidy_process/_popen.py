"""``Popen``: subprocess's, whose process is born in a tree of its own."""

import errno
import os
import subprocess
import sys
import warnings

from ._native import spawn
from ._request import Pidfd, arguments, environment, groups, has_gil, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket as Socket
    from types import TracebackType
    from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Type

    from ._additions import Additions
    from ._native import Child, Ended
    from ._values import Port, ProcessInfo, Report

# The keyword arguments that subprocess does not know; `_additions.py` has what they mean.
NAMES = frozenset(
    ("deadline", "grace", "stop_signal", "stop_main_only", "limits", "sandbox", "log", "name")
    + ("tree", "linger", "die_with")
)


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """A command in a tree of its own: whatever it starts ends with it.

    All parameters and all behaviour of :class:`subprocess.Popen`, whose verbs (``wait``, ``kill``,
    ``terminate``, ``send_signal``) go to the main process. These keyword arguments come on top:

    ``deadline`` seconds after which the tree is ended, kept by every wait; ``grace`` seconds that a
    tree has after ``stop_signal`` before it is killed, ``stop_main_only`` for servers that stop
    their workers themselves; ``limits``; ``sandbox``; ``log`` for output that is not redirected;
    ``name``; ``tree``, a :class:`Tree` to join instead; ``linger``: ``communicate`` waits until all
    have closed the pipes, as subprocess does; ``die_with``, a pid: when that process ends, though
    not one of its threads, the tree is stopped, with its ``grace``, by every wait.

    ``with Popen(..)`` waits for the main process, as subprocess does, and then ends the tree;
    :func:`tidy_process` ends it at once. An object that is dropped ends its tree too.
    """

    # Annotations are quoted as in `__init__.py`, and for its reason.

    _native: "Optional[Child]" = None
    _additions: "Optional[Additions]" = None
    _ended: "Optional[Ended]" = None
    _report: "Optional[Report]" = None
    _forwarded: "Optional[Socket]" = None
    _detached = False
    # Of one that has joined another tree, once it was asked for.
    _pidfd: "Optional[Pidfd]" = None

    def __init__(self, args: "Any", *rest: "Any", **keywords: "Any") -> None:
        if not NAMES.isdisjoint(keywords):
            from ._additions import Additions

            found = {name: keywords.pop(name) for name in NAMES if name in keywords}
            self._additions = Additions(**found)
        super().__init__(args, *rest, **keywords)
        # subprocess waits so long after Ctrl-C for a child that has got it too. The tree is ended
        # here, and Ctrl-C is not held up.
        self._sigint_wait_secs = 0

    # The one private seam of subprocess: it has prepared the streams.
    def _execute_child(
        self,
        args: "Any",
        executable: "Any",
        preexec_fn: "Optional[Callable[[], Any]]",
        close_fds: bool,
        pass_fds: "Sequence[int]",
        cwd: "Any",
        env: "Any",
        startupinfo: "Any",
        creationflags: int,
        shell: bool,
        p2cread: int,
        p2cwrite: int,
        c2pread: int,
        c2pwrite: int,
        errread: int,
        errwrite: int,
        restore_signals: bool,
        gid: "Optional[int]",
        gids: "Optional[Sequence[int]]",
        uid: "Optional[int]",
        umask: int,
        start_new_session: bool,
        process_group: int = -1,
    ) -> None:
        tree = self._additions.tree if self._additions else None
        if tree is not None:
            self._join(tree, locals())
            return
        args = arguments(args, shell, executable)
        program = args[0] if executable is None else executable
        sys.audit("subprocess.Popen", program, args, cwd, env)
        if env is None and not has_gil():
            # What is copied in Rust is the C library's table, which another thread may be moving.
            env = os.environb.copy()
        confined = self._additions is not None and self._additions.sandbox is not None
        fds = [] if confined else list(pass_fds)
        request: Dict[str, Any] = {
            "argv": [os.fsencode(arg) for arg in args],
            "executable": None if executable is None else os.fsencode(program),
            "env": None if env is None else environment(env),
            "cwd": None if cwd is None else os.fsencode(cwd),
            "streams": (p2cread, c2pwrite, errwrite),
            "fds": fds if close_fds else None,
            "restore_signals": bool(restore_signals),
            "session": bool(start_new_session),
            "process_group": None if process_group is None or process_group < 0 else process_group,
            "umask": None if umask < 0 else umask,
            "uid": number(uid),
            "gid": number(gid),
            "groups": None if gids is None else groups(gids),
            "preexec": preexec_fn,
        }
        try:
            told = self._additions.told(pass_fds) if self._additions else None
            self._native = spawn(request, told)
        except OSError as error:
            from ._errors import as_subprocess_has_it

            raise as_subprocess_has_it(error, program, cwd) from None
        self.pid = self._native.pid
        self._child_created = True
        self._close_ends((p2cread, p2cwrite), (c2pwrite, c2pread), (errwrite, errread))

    def _close_ends(self, *pairs: "Tuple[int, int]") -> None:
        """Closes the child's ends of the pipes."""
        devnull = getattr(self, "_devnull", None)
        for theirs, ours in pairs:
            if theirs != -1 and ours != -1 and theirs != devnull:
                os.close(theirs)
        if devnull is not None:
            os.close(devnull)
        self._closed_child_pipe_fds = True

    def _join(self, tree: "Any", given: "Dict[str, Any]") -> None:
        """Starts it as subprocess does, in another tree."""
        names = [name for name in given if name not in ("self", "tree", "__class__")]
        values = [given[name] for name in names]
        if sys.version_info < (3, 11):
            values.pop()  # There is no process_group.
        values[2] = tree._joining(given["preexec_fn"])
        values[4] = tuple(given["pass_fds"])
        super()._execute_child(*values)  # type: ignore[misc]

    def _note(self, raw: "Optional[int]") -> "Optional[int]":
        if raw is not None and self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(raw)
        return self.returncode

    def _internal_poll(self, _deadstate: "Optional[int]" = None, **_: "Any") -> "Optional[int]":
        if self._native is None:
            return super()._internal_poll(_deadstate)  # type: ignore[misc,no-any-return]
        if self.returncode is None:
            try:
                self._note(self._native.wait(0.0))
            except OSError as error:
                self._taken(error)
        return self.returncode

    def _wait(self, timeout: "Optional[float]") -> int:
        if self._native is None:
            return super()._wait(timeout)  # type: ignore[misc,no-any-return]
        if self.returncode is None:
            try:
                raw = self._native.wait(timeout)
            except OSError as error:
                self._taken(error)
            else:
                if self._note(raw) is None:
                    assert timeout is not None
                    raise subprocess.TimeoutExpired(self.args, timeout)
        assert self.returncode is not None
        return self.returncode

    def _taken(self, error: "OSError") -> None:
        """Other code has taken the exit status: 255 as asyncio says, and not subprocess's 0."""
        if error.errno != errno.ECHILD:
            raise error
        self.returncode = 255

    def _communicate(self, input: "Any", endtime: "Any", orig_timeout: "Any") -> "Tuple[Any, Any]":
        lingers = self._additions is not None and self._additions.linger
        if self._native is None or lingers:
            theirs: Any = super()
            return theirs._communicate(input, endtime, orig_timeout)  # type: ignore[no-any-return]
        from . import _communicate  # At its first use, as all that not every program needs.

        return _communicate.communicate(self, input, endtime, orig_timeout)

    def communicate(
        self, input: "Any" = None, timeout: "Optional[float]" = None
    ) -> "Tuple[Any, Any]":
        """As subprocess's, but it ends with the main process: others may hold the pipes."""
        many = [self.stdin, self.stdout, self.stderr].count(None) < 2
        begun = self.__dict__.get("_communication_started")
        if self._native is None or timeout is not None or many or begun:
            return super().communicate(input, timeout)
        feeds_alone = self.stdin is not None and self.stdout is None and self.stderr is None
        if feeds_alone and self._additions is None:
            return super().communicate(input, timeout)
        # With one pipe alone subprocess reads to its end, or writes, and looks at nothing else.
        collected = self._communicate(input, None, None)
        self._communication_started = True
        return collected

    def send_signal(self, sig: int) -> None:
        """Sends a signal to the main process."""
        if self._native is None:
            super().send_signal(sig)
        elif self.poll() is None:
            try:
                self._native.signal(int(sig))
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise

    def __exit__(
        self,
        kind: "Optional[Type[BaseException]]",
        value: "Optional[BaseException]",
        traceback: "Optional[TracebackType]",
    ) -> None:
        try:
            super().__exit__(kind, value, traceback)
        finally:
            if self._child_created:
                self._end()

    def __del__(self, _maxsize: int = sys.maxsize, _warn: "Any" = warnings.warn) -> None:
        if self._native is None:
            super().__del__()
        elif self._runs_unowned():
            text = f"process {self.pid} is still running: its tree is ended now"
            _warn(text, ResourceWarning, source=self)

    def _runs_unowned(self) -> bool:
        known = self.returncode is not None or self._ended is not None
        return self._child_created and not known and not self._detached

    # What subprocess does not have.

    def _tidy(self) -> "Child":
        if self._native is None:
            raise ValueError(f"process {self.pid} has no tree of its own: it has joined another")
        return self._native

    def finish(self) -> "Optional[Report]":
        """Ends the tree, with the grace if there is one, and says what became of it.

        None for a process that has joined another tree. A second call returns the same.
        """
        self._end()
        return self.report

    def _end(self) -> None:
        """Ends the tree. Its report is laid out when it is asked for."""
        if self._native is None:
            self._end_joined()
        elif self._ended is None:
            patient = self.returncode is None and bool(self._additions and self._additions.grace)
            try:
                self._ended = self._native.finish(patient)
            except OSError as error:
                report = getattr(error, "report", None)
                if report is not None and self.returncode is None:
                    self.returncode = report.returncode
                raise
            finally:
                self._close_pipes()
            self._note(self._ended.raw_status)

    def _end_joined(self) -> None:
        if self.returncode is None:
            self.kill()
            self.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass  # What was not written yet has no reader any more.

    @property
    def report(self) -> "Optional[Report]":
        """What :meth:`finish` returns, once the tree was ended."""
        if self._report is None and self._ended is not None:
            self._report = _values().Report._of(self._ended.told())
        return self._report

    def stop(self, grace: float = 0.0) -> None:
        """Sends the stop signal to the tree, and kills what is left when the grace is over."""
        self._tidy().stop(grace)
        self.poll()

    def kill_tree(self) -> None:
        """Kills the whole tree; on return nothing of it is left."""
        self._tidy().kill_tree()

    def signal_tree(self, sig: int) -> None:
        """Sends a signal to the whole tree."""
        self._tidy().signal_tree(int(sig))

    def wait_ready(self, *, timeout: float = 30.0, **condition: "Any") -> None:
        """Waits until the tree meets a condition; :class:`NotReady` if it ends, or time is over.

        One of ``port`` (a number; 0 for any), ``http`` (a URL), ``line`` (a text in its ``log``),
        ``file`` (made or changed since the spawn), ``unix`` (a socket), ``when`` (a function).
        It is the tree that has to meet it: a port that another process has is :class:`PortTaken`.
        """
        if len(condition) != 1:
            raise TypeError("wait_ready takes one condition: port, http, line, file, unix or when")
        ((what, value),) = condition.items()
        self._tidy().wait_ready(what, value, timeout)

    def ports(self) -> "List[Port]":
        """The ports on which the tree listens."""
        return [_values().Port(*port) for port in self._tidy().ports()]

    def processes(self) -> "List[ProcessInfo]":
        """The processes of the tree."""
        return [_values().ProcessInfo._of(one) for one in self._tidy().processes()]

    def fileno(self) -> int:
        """The main process's pidfd: readable once it has ended. The object closes it."""
        if self._native is not None:
            return self._native.fileno()
        if self._pidfd is None:
            if self.returncode is not None:
                raise ProcessLookupError(errno.ESRCH, f"process {self.pid} has ended")
            self._pidfd = Pidfd(self.pid)
        return self._pidfd.number

    def _watched(self) -> "List[int]":
        """Its fds to wait for: the second is that of the process that it dies with."""
        kept = self._native if self._additions else None
        partner = kept.partner_fileno() if kept else None
        return [self.fileno()] if partner is None else [self.fileno(), partner]

    def _enforce(self) -> "Optional[float]":
        """Enforces deadline and grace; seconds until it has to be called again, if it has."""
        # Without such keywords there is none, and none of one in another's tree.
        kept = self._native if self._additions else None
        return kept.enforce() if kept else None

    @property
    def forwarded(self) -> "Optional[Socket]":
        """Where the connections arrive that a sandbox with ``network="forward:PORT"`` lets out."""
        if self._forwarded is None and self._native is not None:
            fd = self._native.take_forwarded()
            if fd is not None:
                import socket

                self._forwarded = socket.socket(fileno=fd)
        return self._forwarded

    def detach(self) -> None:
        """Lets the tree live on without this object, until this Python process ends."""
        self._tidy().detach()
        self._detached = True


def _values() -> "Any":
    """Imported at its first use: dataclasses cost more than all the rest."""
    from . import _values

    return _values
