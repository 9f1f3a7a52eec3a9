"""Where the cache lies, and what is said where it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from seewhy.errors import DataError
from seewhy.storage.cache import cache_dir

CURE = "Set SEEWHY_CACHE to a writable folder."


@pytest.fixture(autouse=True)
def linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SEEWHY_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir("a", "b") == tmp_path / "home" / ".cache" / "seewhy" / "a" / "b"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_dir() == tmp_path / "home" / ".cache" / "seewhy"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "seewhy"
    monkeypatch.setenv("SEEWHY_CACHE", "~/own")
    assert cache_dir() == tmp_path / "home" / "own"
    assert cache_dir().is_dir()


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(DataError) as caught:
        cache_dir()
    assert str(caught.value) == f"No cache folder was found: Could not determine home directory. {CURE}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "seewhy"


def test_a_place_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(DataError) as caught:
        cache_dir()
    assert str(caught.value) == (f"The cache folder {tmp_path / 'file' / 'x'} cannot be used: not a directory. {CURE}")

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/.cache")

    monkeypatch.setattr(Path, "mkdir", deny)
    with pytest.raises(DataError) as caught:
        cache_dir()
    assert str(caught.value) == (
        f"The cache folder {tmp_path / 'file' / 'x'} cannot be used: permission denied. {CURE}"
    )
