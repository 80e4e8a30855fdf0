"""Makes every ``subprocess.Popen`` of the program a tidy one."""

from __future__ import annotations

import subprocess

from ._popen import Popen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_original: Any = None


def install() -> None:
    """Replaces ``subprocess.Popen``: ``subprocess.run``, asyncio and all that builds on it is tidy.

    Classes that were derived from it before, and names imported from it before, stay as they are.
    """
    global _original
    if subprocess.Popen is not Popen:
        _original = subprocess.Popen
        subprocess.Popen = Popen  # type: ignore[misc]


def uninstall() -> None:
    """Puts back what :func:`install` has replaced."""
    global _original
    if _original is not None and subprocess.Popen is Popen:
        subprocess.Popen = _original  # type: ignore[misc]
    _original = None
