"""What a training has done stays where it cannot go on, and is told in a sentence."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import DATA, HOW, Line
from torch import Tensor

from seewhy.errors import DataError, InputError
from seewhy.storage import output
from seewhy.training.loop import Training, train


class Bursting(Line):
    """A loss that is no number from a step on."""

    def loss(self, features: Tensor, batch: Any) -> Any:
        found = dict(super().loss(features, batch))
        return found if self.calls < 17 else found | {"loss": found["loss"] * torch.inf}


def test_a_loss_that_is_no_number_loses_nothing(tmp_path: Path) -> None:
    path, task = tmp_path / "c", Bursting()
    with pytest.raises(InputError) as caught:
        train(task, DATA, HOW, checkpoint=(path, "line"))
    assert str(caught.value) == (
        f"The loss is not finite at step 17; the checkpoint {path} is at step 14. Lower the learning rate, for "
        "example to a tenth of 0.05."
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


def test_half_the_digits_are_for_graphics_cards() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a graphics card, on which bf16 is allowed")
    with pytest.raises(InputError) as caught:
        train(Line(), DATA, Training(1, precision="bf16"))
    assert str(caught.value) == (
        "precision='bf16' requires a GPU, but the training runs on cpu. Leave `precision` out."
    )
