"""Exceptions. What subprocess has a class for (a missing program) is raised as subprocess does."""

from __future__ import annotations

import os
import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Type

    from ._values import ProcessInfo, Report


# The steps between birth and exec that subprocess knows; their errors have its form.
STEPS = (
    "exec",
    "chdir",
    "chdir in the sandbox to",
    "setuid",
    "setgid",
    "setgroups",
    "setsid",
    "setpgid",
)


class Error(OSError):
    """Why a command could not be started, waited for or ended.

    ``hint`` says what to do about it, ``step`` what failed; ``report`` how the command ended, where
    that is known all the same.
    """

    hint: Optional[str] = None
    step: Optional[str] = None
    report: Optional[Report] = None

    def __str__(self) -> str:
        text = str(self.args[-1]) if self.args else ""
        return f"{text}\nhint: {self.hint}" if self.hint else text


class NotReady(Error):
    """The command ended, or the time was over, before it was ready."""


class PortTaken(NotReady):
    """A process that is not of the tree has the port or socket: ``holder``."""

    holder: Optional[ProcessInfo] = None


class LimitError(Error):
    """A limit cannot be enforced here."""


class PartnerGone(Error, ProcessLookupError):
    """The process to die with had ended before: nothing was started."""


class Survivors(Error):
    """Processes outlived SIGKILL: ``processes``."""

    processes: List[ProcessInfo]


CLASSES: Dict[str, Type[Error]] = {
    "not-ready": NotReady,
    "port-taken": PortTaken,
    "limit": LimitError,
    "partner-gone": PartnerGone,
    "survivors": Survivors,
}


def make(
    text: str,
    errno: Optional[int],
    hint: Optional[str],
    step: Optional[str],
    path: Optional[bytes],
    kind: str,
    survivors: List[Dict[str, Any]],
    holder: Optional[Dict[str, Any]],
    report: Optional[Dict[str, Any]],
) -> BaseException:
    """The exception for an error of the library's; called by the extension module."""
    if kind == "nul":
        return ValueError("embedded null byte")
    from ._values import ProcessInfo, Report

    error = CLASSES.get(kind, Error)(errno, text) if errno else CLASSES.get(kind, Error)(text)
    error.hint, error.step = hint, step
    if path is not None:
        error.filename = os.fsdecode(path)
    if report is not None:
        error.report = Report._of(report)
    if isinstance(error, Survivors):
        error.processes = [ProcessInfo._of(one) for one in survivors]
    if isinstance(error, PortTaken) and holder is not None:
        error.holder = ProcessInfo._of(holder)
    return error


def as_subprocess_has_it(error: OSError, program: Any, cwd: Any) -> BaseException:
    """The exception that subprocess would raise, if it has one; with our hint."""
    step, hint = getattr(error, "step", None), getattr(error, "hint", None)
    if step == "pre_exec":
        return subprocess.SubprocessError("Exception occurred in preexec_fn.")
    if step not in STEPS or error.errno is None:
        return error
    name = {"exec": program}.get(step, cwd if step.startswith("chdir") else None)
    known = OSError(error.errno, os.strerror(error.errno), name)
    if hint and hasattr(known, "add_note"):
        known.add_note(f"hint: {hint}")
    return known
