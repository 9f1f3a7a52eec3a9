"""A history on the disk: only added to, repaired by going on, told in a sentence where it cannot be."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import DATA, HOW, Line
from torch import Tensor

from seewhy.errors import DataError, ForeignFileError, InputError
from seewhy.progress import Progress
from seewhy.storage import journal, output
from seewhy.training.loop import Training, train


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def stopped(folder: Path, at: int = 25) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_at=at), DATA, HOW, checkpoint=(folder / "c", "line"), history=folder / "history.jsonl")


def gone_on(folder: Path, progress: Progress | None = None) -> tuple[dict[str, float], ...]:
    kept = (folder / "c", "line")
    return train(Line(), DATA, HOW, checkpoint=kept, history=folder / "history.jsonl", progress=progress).history


def test_it_says_what_the_training_says_and_is_only_added_to(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    stopped(tmp_path)
    before = path.read_bytes()
    assert [row["step"] for row in rows(path)[1:]] == list(range(1, 22))
    whole = gone_on(tmp_path)
    assert path.read_bytes().startswith(before)
    assert rows(path)[1:] == [{"step": i, **row} for i, row in enumerate(whole, 1)]
    again = path.read_bytes()
    gone_on(tmp_path)
    assert path.read_bytes() == again


def test_a_kill_between_history_and_checkpoint_is_repaired(tmp_path: Path) -> None:
    """The checkpoint is of step 21 and the history of 24, and half of 25."""
    path = tmp_path / "history.jsonl"
    stopped(tmp_path)
    straight = train(Line(), DATA, HOW).history
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps({"step": i, **straight[i - 1]}) + "\n" for i in (22, 23, 24))
        file.write('{"step": 25, "lo')
    assert gone_on(tmp_path) == straight
    assert rows(path)[1:] == [{"step": i, **row} for i, row in enumerate(straight, 1)]


def test_lines_that_are_missing_are_told(tmp_path: Path) -> None:
    stopped(tmp_path)
    path, progress = tmp_path / "history.jsonl", Progress()
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:11]))
    gone_on(tmp_path, progress)
    assert f"{path} lacks steps 11 to 21, which an earlier run made" in progress.notes
    assert [row["step"] for row in rows(path)[1:]] == [*range(1, 11), *range(22, 61)]


def test_the_history_of_another_training_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    train(Line(), DATA, replace(HOW, n_steps=2), history=path)
    before = path.read_bytes()
    with pytest.raises(ForeignFileError) as caught:
        train(Line(), DATA, replace(HOW, n_steps=3), history=path)
    assert str(caught.value) == (
        f"{path} is the history of another training. A new name, or what this very training left, was expected. Choose "
        "another name, or move it away."
    )
    assert path.read_bytes() == before


class Bursting(Line):
    """A loss that is no number from a step on."""

    def loss(self, features: Tensor, batch: Any) -> Any:
        found = dict(super().loss(features, batch))
        return found if self.calls < 17 else found | {"loss": found["loss"] * torch.inf}


def test_a_loss_that_is_no_number_loses_nothing(tmp_path: Path) -> None:
    path, task = tmp_path / "c", Bursting()
    with pytest.raises(InputError) as caught:
        train(task, DATA, HOW, checkpoint=(path, "line"), history=tmp_path / "history.jsonl")
    assert str(caught.value) == (
        f"The loss is not finite at step 17; {path} holds step 14. A smaller learning rate was expected: lr is 0.05. "
        "Give a tenth of it."
    )
    assert all(value.isfinite().all() for value in task.state_dict().values()), "the step was not made"
    straight, rest = Line(), Line()
    train(straight, DATA, HOW)
    assert train(rest, DATA, HOW, checkpoint=(path, "line")).resumed_at == 14
    assert torch.equal(rest.net[0].weight, straight.net[0].weight)


def test_a_full_disk_is_told_and_what_was_kept_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept = tmp_path / "c", output._write_flushed
    n = 0

    def full(*given: Any) -> None:
        nonlocal n
        n += 1
        if n == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        kept(*given)

    with monkeypatch.context() as patch:
        patch.setattr(output, "_write_flushed", full)
        with pytest.raises(DataError) as caught:
            train(Line(), DATA, HOW, checkpoint=(path, "line"))
    assert str(caught.value) == (
        f"{path} could not be written: no space left on device. Free some space on that disk, or choose another."
    )
    assert train(Line(), DATA, HOW, checkpoint=(path, "line")).resumed_at == 14

    def no_line(self: journal.Journal, row: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal.Journal, "add", no_line)
    with pytest.raises(DataError) as caught:
        train(Line(), DATA, HOW, history=tmp_path / "history.jsonl")
    assert str(caught.value) == (
        f"{tmp_path / 'history.jsonl'} could not be written: no space left on device. A disk with space was expected. "
        "Free some, and start again: the training goes on from its checkpoint."
    )


def test_half_the_digits_are_for_graphics_cards() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a graphics card")
    with pytest.raises(InputError) as caught:
        train(Line(), DATA, Training(1, precision="bf16"))
    assert str(caught.value) == (
        "precision='bf16' was given, and the training runs on cpu. A graphics card was expected: elsewhere it is "
        "slower. Leave precision out."
    )
