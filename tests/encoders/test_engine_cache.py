"""Converted trunks where nothing can be kept: the run goes on, and says why and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from seewhy.encoders import engines
from seewhy.encoders.engines import kept_folder


def fill(folder: Path) -> None:
    (folder / "trunk.bin").write_bytes(b"x" * 1000)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_changed_byte_is_noticed_before_use(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = kept_folder("one", fill)
    assert kept_folder("one", lambda _folder: pytest.fail("was built again")) == folder
    (folder / "trunk.bin").write_bytes(b"y" + b"x" * 999)
    assert (kept_folder("one", fill) / "trunk.bin").read_bytes() == b"x" * 1000
    assert "was damaged, so SeeWhy converted it again" in caplog.text


def test_a_cache_that_is_a_file(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.write_text("")
    assert (kept_folder("one", fill) / "trunk.bin").stat().st_size == 1000
    assert f"The cache folder {cache / 'engines'} cannot be used: not a directory" in caplog.text


def test_a_cache_that_cannot_be_written_to(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def readonly(_folder: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(engines, "new_folder", readonly)
    assert (kept_folder("one", fill) / "trunk.bin").stat().st_size == 1000
    assert f"{cache / 'engines'} cannot be written to: read-only file system. Set SEEWHY_CACHE" in caplog.text


def test_a_conversion_that_fails_is_told(cache: Path) -> None:
    def breaks(folder: Path) -> None:
        raise RuntimeError("cannot write")

    with pytest.raises(RuntimeError, match="cannot write"):
        kept_folder("one", breaks)
    assert list((cache / "engines").iterdir()) == []
