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

from __future__ import annotations

import atexit as _atexit
import os as _os

from . import _native

_native.check_interpreter()
from ._errors import Error, LimitError, NotReady, PortTaken, Survivors
from ._install import install, uninstall
from ._native import Log
from ._popen import Popen
from ._run import CompletedProcess, run, tidy_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._ports import free_port
    from ._tree import Tree
    from ._values import Limits, Port, ProcessInfo, Report, Sandbox, TreeReport

__all__ = [
    "CompletedProcess",
    "Error",
    "LimitError",
    "Limits",
    "Log",
    "NotReady",
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

# Imported at their first use: what they stand on (dataclasses, socket) costs more than the rest.
_LATER = {"Tree": "_tree", "free_port": "_ports"}
for _name in ("Limits", "Port", "ProcessInfo", "Report", "Sandbox", "TreeReport"):
    _LATER[_name] = "_values"


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return found


# A fork has trees of its own, and leaves its parent's alone.
_os.register_at_fork(after_in_child=_native.after_fork)
# Without it the guard would end everything a moment later.
_atexit.register(_native.shutdown)
