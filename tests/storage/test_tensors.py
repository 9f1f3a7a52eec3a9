"""Tensors in the cache are the ones that were made, or are made again."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from seewhy.storage.tensors import cached_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(0.5, dtype=torch.float64), "c": torch.empty(0)}


class Maker:
    """Counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, Tensor]:
        self.calls += 1
        return dict(TENSORS)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    return tmp_path / "text" / "space.safetensors"


def assert_kept(make: Maker, calls: int) -> None:
    found = cached_tensors("text", "space", make)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in TENSORS.items())
    assert make.calls == calls


def test_made_once(path: Path) -> None:
    make = Maker()
    assert_kept(make, 1)
    assert_kept(make, 1)


@pytest.mark.parametrize("change", ["a value", "cut off", "empty"])
def test_damage_is_noticed(path: Path, change: str, caplog: pytest.LogCaptureFixture) -> None:
    make = Maker()
    assert_kept(make, 1)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes({"a value": bytes(data), "cut off": bytes(data[:-8]), "empty": b""}[change])
    with caplog.at_level(logging.WARNING, "seewhy"):
        assert_kept(make, 2)
    assert caplog.messages == [f"{path} was damaged and is computed again."]
    assert_kept(make, 2)


def test_a_file_without_digest_is_computed_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make = Maker()
    path.parent.mkdir()
    save_file({"old": torch.zeros(1)}, path)
    assert_kept(make, 1)
    assert caplog.messages == [f"{path} was damaged and is computed again."]


@pytest.mark.parametrize("trouble", ["no folder", "full disk"])
def test_where_nothing_can_be_kept_the_run_goes_on_and_says_so(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / ("file" if trouble == "no folder" else "cache")))
    full = OSError(28, "No space left on device")
    if trouble == "full disk":
        monkeypatch.setattr("os.fsync", lambda _file: (_ for _ in ()).throw(full))
    make = Maker()
    assert_kept(make, 1)
    assert len(caplog.messages) == 1
    said = "cannot be used: not a directory" if trouble == "no folder" else "could not be written: no space left"
    assert said in caplog.text
    assert str(tmp_path) in caplog.text
    assert "Until then, it is computed again in every run." in caplog.text
