"""``seewhy pretrain`` on pictures alone, killed again and again: it ends at the tensors of an undisturbed run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from killing import Killing, content, writes
from tiny import class_folders


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="this system has no SIGKILL")
def test_its_slow_copy_and_its_queue_outlive_it(tmp_path: Path, own_cache: Path) -> None:
    class_folders(tmp_path / "all", 8)
    run = Killing(tmp_path)

    def pretrain(name: str) -> list[str]:
        how = ["--objective", "look", "--set", "k=3", "--encoder", "new:resnet/16", "--engine", "torch"]
        return ["pretrain", "all", "-o", name, "--store", "none", *how, "--epochs", "80", "--set", "batch_size=8"]

    run.finish(*pretrain("whole"))
    checkpoint = tmp_path / ".cut.checkpoint"
    run.kill_at(writes(checkpoint), [1, 2], *pretrain("cut"))
    assert not (tmp_path / "cut").exists()
    run.finish(*pretrain("cut"))
    assert "resuming at step" in run.complained.read_text("utf-8")
    whole, cut = content(tmp_path / "whole"), content(tmp_path / "cut")
    assert cut.keys() == whole.keys(), "tensors are named by their digest"
    assert cut["log.csv"] == whole["log.csv"]
    assert not checkpoint.exists()
