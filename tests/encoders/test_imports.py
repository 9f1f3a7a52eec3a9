"""Libraries of encoders are imported by one thread at a time."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from seewhy.encoders import find

LIBRARY = """
import sys, time
sys.imported_parts.append("begins")
time.sleep(0.2)
sys.imported_parts.append("ends")
"""
LOADER = """
LIBRARIES = ("{library}",)

def load(name, *, engine="auto"):
    import {library}
    return {library}.__name__
"""


def test_libraries_are_imported_by_one_thread_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two threads that import what needs each other, Python would hand one a module that is half made."""
    names = ("slow_one", "slow_two")
    for library in names:
        (tmp_path / f"{library}.py").write_text(LIBRARY)
        (tmp_path / f"loads_{library}.py").write_text(LOADER.format(library=library))
    parts: list[str] = []
    monkeypatch.setattr(sys, "imported_parts", parts, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(find, "schemes", lambda: {name: f"loads_{name}" for name in names})
    threads = [threading.Thread(target=find.encoder, args=(f"{name}:x",)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        del sys.modules[name], sys.modules[f"loads_{name}"]
    assert parts == ["begins", "ends"] * 2


def test_a_library_that_is_not_installed_is_left_to_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loads_none.py").write_text('LIBRARIES = ("no_such_library",)\ndef load(name, *, engine): return name')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(find, "schemes", lambda: {"none": "loads_none"})
    assert find.encoder("none:x") == "x"
    del sys.modules["loads_none"]
