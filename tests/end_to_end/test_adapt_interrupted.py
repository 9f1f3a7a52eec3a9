"""``seewhy adapt`` killed, or out of space: what was there stays, and the run ends as one that nothing disturbed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from killing import Killing, content, rows, writes
from seewhy.cli import app
from seewhy.learning.encoders.adapted import CARD, open_adaptation
from seewhy.storage import output
from tiny import picture
from tiny_words import tiny_pair

LABELS = ("moss", "rust", "sky", "sand")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Textures, each with two texts."""
    folder = tmp_path_factory.mktemp("adapted")
    lines = []
    for label in LABELS:
        for i in range(8):
            Image.fromarray(picture(label, i)).save(folder / f"{label}{i}.png")
            lines.append({"image": f"{label}{i}.png", "text": [f"some {label} here {i}", f"number {i} of {label}"]})
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def tensors(folder: Path) -> dict[str, bytes]:
    """What was trained, by the name that holds its digest."""
    found = {name: data for name, data in content(folder).items() if name.endswith(".safetensors")}
    assert len(found) == 1
    return found


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="this system has no SIGKILL")
def test_killed_again_and_again_it_ends_at_the_same_tensors(place: Path, own_cache: Path) -> None:
    run = Killing(place)

    def adapt(name: str) -> list[str]:
        how = [
            "--encoder",
            "new:resnet",
            "--engine",
            "torch",
            "--keep",
            "0.5",
            "--epochs",
            "150",
            "--set",
            "batch_size=12",
        ]
        return ["adapt", "pairs.jsonl", "-o", name, "--store", f"{name}.sqlite", *how]

    run.finish(*adapt("whole"))
    checkpoint = place / ".cut.checkpoint"
    run.kill(lambda: rows(place / "cut.sqlite", "looks_2")() > 0, *adapt("cut"))
    run.kill_at(writes(checkpoint), [1, 3, 5], *adapt("cut"))
    assert not (place / "cut").exists()
    run.finish(*adapt("cut"))
    assert "resuming at step" in run.complained.read_text("utf-8")
    assert tensors(place / "cut") == tensors(place / "whole")
    assert content(place / "cut").keys() == content(place / "whole").keys()
    assert (place / "cut" / "log.csv").read_bytes() == (place / "whole" / "log.csv").read_bytes()
    assert not checkpoint.exists()


@pytest.fixture
def adapt(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The verb on a tiny encoder, in this process; what it says or is stopped by."""
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda name, engine: tiny_pair())

    def call(seed: int) -> str:
        how = ["--keep", "0.5", "--epochs", "27", "--set", "batch_size=12", "--store", "none", "--seed", str(seed)]
        done = CliRunner().invoke(app, ["adapt", str(place / "pairs.jsonl"), "-o", str(tmp_path / "enc"), *how])
        return done.output if done.exit_code == 0 else str(done.exception)

    return call


def fill_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has no room for a file that is to bear this name."""
    write = output.write_atomic

    def full(path: Path, data: bytes | str, **options: bool) -> Path:
        def no_room(temporary: Path, payload: bytes) -> None:
            temporary.write_bytes(payload[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            if path.name.startswith(name):
                patch.setattr(output, "_write_flushed", no_room)
            return write(path, data, **options)

    monkeypatch.setattr(output, "write_atomic", full)
    monkeypatch.setattr("seewhy.storage.folders.write_atomic", full)


@pytest.mark.parametrize(
    ("name", "there"),
    [(".enc.checkpoint", True), ("run.html", True), ("tensors-", True), (CARD, True), (CARD, False)],
)
def test_a_full_disk_names_the_file_and_leaves_the_earlier_encoder(
    name: str, there: bool, adapt: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "enc"
    if there:
        adapt(0)
    before = content(folder)
    with monkeypatch.context() as patch:
        fill_at(name, patch)
        said = adapt(1)
    file = tmp_path / name if name[0] == "." else folder / name
    assert said.startswith(str(file))
    assert said.endswith(
        " could not be written: no space left on device. Free some space on that disk, or choose another."
    )
    assert (content(folder), folder.exists()) == (before, there)
    left = {p.name for p in tmp_path.iterdir()} - {"enc"}
    assert left == (set() if name[0] == "." else {".enc.checkpoint"})
    assert ("all 54 steps were finished by an earlier run" in adapt(1)) == bool(left)
    assert open_adaptation(folder, base=tiny_pair()).provenance["seed"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["enc"]
    assert [p for p in folder.iterdir() if p.name.startswith(".")] == []
