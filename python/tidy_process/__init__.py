"""Nothing that you start outlives you: processes that end with all that they have started.

>>> from tidy_process import run, tidy_process
>>> run(["sh", "-c", "sleep 30 & echo hi"], capture_output=True, text=True).stdout
'hi\\n'
>>> with tidy_process(["sh", "-c", "sleep 30 & exec sleep 30"]) as proc:
...     proc.poll() is None
True
>>> proc.report.cause
'stopped'
"""

# No `from __future__`: each import here is paid for by every program, so annotations are quoted.

import atexit as _atexit
import os as _os

from . import _native

_native.check_interpreter()
from ._native import Log
from ._popen import Popen
from ._run import CompletedProcess, run, tidy_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List

    from ._errors import Error, LimitError, NotReady, PartnerGone, PortTaken, Survivors
    from ._install import install, uninstall
    from ._ports import free_port
    from ._tree import Tree
    from ._values import (
        Change,
        ChangeList,
        Changes,
        Confined,
        Denied,
        IoLimit,
        Limits,
        Missing,
        Note,
        Port,
        ProcessInfo,
        Report,
        Sandbox,
        TreeReport,
    )

# Imported at their first use: what they stand on (dataclasses, socket) costs more than the rest.
_LATER = {
    "_errors": ("Error", "LimitError", "NotReady", "PartnerGone", "PortTaken", "Survivors"),
    "_install": ("install", "uninstall"),
    "_ports": ("free_port",),
    "_tree": ("Tree",),
    "_values": ("Change", "ChangeList", "Changes", "Confined", "Denied", "IoLimit", "Limits")
    + ("Missing", "Note", "Port", "ProcessInfo", "Report", "Sandbox", "TreeReport"),
}

__all__ = [
    "Change",
    "ChangeList",
    "Changes",
    "CompletedProcess",
    "Confined",
    "Denied",
    "Error",
    "IoLimit",
    "LimitError",
    "Limits",
    "Log",
    "Missing",
    "NotReady",
    "Note",
    "PartnerGone",
    "Popen",
    "Port",
    "PortTaken",
    "ProcessInfo",
    "Report",
    "Sandbox",
    "Survivors",
    "Tree",
    "TreeReport",
    "free_port",
    "install",
    "run",
    "tidy_process",
    "uninstall",
]


def __getattr__(name: str) -> object:
    for module, names in _LATER.items():
        if name in names:
            found: object = getattr(__import__(f"{__name__}.{module}", fromlist=[name]), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> "List[str]":
    return sorted({*globals(), *__all__})


# A fork has trees of its own, and leaves its parent's alone.
_os.register_at_fork(after_in_child=_native.after_fork)
# Without it the guard would end everything a moment later.
_atexit.register(_native.shutdown)
