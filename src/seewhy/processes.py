"""Python processes that SeeWhy starts; they never import a module from the current folder, which may hold anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subprocess import Popen


def leave_current_folder() -> None:
    """Leave the current folder out of the modules' path of this process, and of all processes that it starts."""
    entries, kept = _named(), _absolute(_named())
    with suppress(OSError):  # the current folder was deleted
        here = os.getcwd()
        if not sys.flags.safe_path and sys.path[:1] in ([here], [""]):  # of python -m and python -c
            del sys.path[0]
        if len(kept) < len(entries) and here not in kept:
            sys.path[:] = [entry for entry in sys.path if entry != here]
    os.environ.update(safe_environment())


def safe_environment() -> dict[str, str]:
    """Return the variables with which Python leaves out the current folder; other entries of PYTHONPATH stay."""
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(_absolute(_named()))}


def start_python(arguments: Sequence[str], variables: Mapping[str, str] | None = None, **options: Any) -> Popen[bytes]:
    """Start Python with the modules that this process can import; ``options`` are those of ``subprocess.Popen``.

    The current folder is left out, unless it is named in full in PYTHONPATH or has the user's script.
    """
    import subprocess

    path = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(_import_path())}
    return subprocess.Popen([sys.executable, *arguments], env={**os.environ, **path, **(variables or {})}, **options)


def _import_path() -> list[str]:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    own = {*_absolute(_named()), os.path.dirname(os.path.dirname(__file__))}
    own |= {os.path.dirname(os.path.abspath(script))} if script else set()
    try:
        here = os.path.realpath(os.curdir)
    except OSError:  # the current folder was deleted
        here = ""
    return [entry for entry in _absolute(sys.path) if entry in own or os.path.realpath(entry) != here]


def _named() -> list[str]:
    path = os.environ.get("PYTHONPATH")
    return path.split(os.pathsep) if path else []


def _absolute(entries: list[str]) -> list[str]:
    """Return entries of a path in full, without those that mean the current folder."""
    return [os.path.abspath(entry) for entry in entries if entry and os.path.normpath(entry) != os.curdir]
