"""The one training loop: the same weights whatever happens on the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import ForeignFileError, InputError
from seewhy.listener import Listener
from seewhy.training.loop import Training, batch_at, rates, train

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
Y = X @ torch.arange(5.0) + 3


def made() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 1))


def loss_of(module: nn.Module, stop_at: int | None = None) -> Callable[[Sequence[int]], Mapping[str, Tensor]]:
    calls = 0

    def loss(index: Sequence[int]) -> Mapping[str, Tensor]:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise KeyboardInterrupt
        off = (module(X[index])[:, 0] - Y[index] + 0.01 * torch.randn(len(index))).square().mean()
        return {"loss": off, "off": off.sqrt()}

    return loss


HOW = Training(60, 8, lr=0.05, checkpoint_every=7)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "per_epoch", "constant"])
def test_a_stopped_run_ends_at_the_same_weights(optimiser: str, schedule: str, tmp_path: Path) -> None:
    how = replace(HOW, optimiser=optimiser, schedule=schedule, lr=0.05 if optimiser == "adamw" else 0.002)
    straight, broken = made(), made()
    whole = train(straight, loss_of(straight), 40, how)
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]
    kept = (tmp_path / "c", "a linear map")
    with pytest.raises(KeyboardInterrupt):
        train(broken, loss_of(broken, stop_at=25), 40, how, checkpoint=kept)
    again, listener = made(), Listener()
    rest = train(again, loss_of(again), 40, how, checkpoint=kept, listener=listener)
    assert rest.resumed_at == 21
    assert listener.notes == ["going on at step 22, where an earlier run was stopped"]
    assert rest.history == whole.history
    for name, value in straight.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not again.training


def test_another_or_a_damaged_checkpoint_is_not_gone_on_from(tmp_path: Path) -> None:
    for text in ("another thing", None):
        path = tmp_path / "c"
        module = made()
        train(module, loss_of(module), 40, HOW, checkpoint=(path, "one thing"))
        if text is None:
            path.write_bytes(path.read_bytes()[:-10])
        listener = Listener()
        done = train(made(), loss_of(module), 40, HOW, checkpoint=(path, text or "one thing"), listener=listener)
        assert done.resumed_at == 0
        assert listener.notes == [
            f"{path} belongs to another training or is damaged; this one begins at the first step"
        ]


def test_what_is_no_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text("mine")
    with pytest.raises(ForeignFileError, match="Move it away"):
        train(made(), loss_of(made()), 40, HOW, checkpoint=(path, "x"))
    assert path.read_text() == "mine"


def test_a_killed_process_is_gone_on_from(tmp_path: Path) -> None:
    code = f"""
import os, sys
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from pathlib import Path
from test_loop import *
module, calls = made(), 0
inner = loss_of(module)
def loss(index):
    global calls
    calls += 1
    if calls == 40: os.kill(os.getpid(), 9)
    return inner(index)
train(module, loss, 40, HOW, checkpoint=(Path({str(tmp_path / "c")!r}), "killed"))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == -9
    straight, again = made(), made()
    train(straight, loss_of(straight), 40, HOW)
    assert train(again, loss_of(again), 40, HOW, checkpoint=(tmp_path / "c", "killed")).resumed_at == 35
    torch.testing.assert_close(again.state_dict(), straight.state_dict())
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_one_cycle_is_that_of_torch() -> None:
    n = 50
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1.0, total_steps=n)
    for step in range(n):
        group = optimiser.param_groups[0]
        assert rates("one_cycle", step, n, 1) == pytest.approx((group["lr"], group["momentum"]), abs=1e-9)
        optimiser.step()
        if step < n - 1:
            theirs.step()


def test_every_epoch_shows_every_sample_once() -> None:
    for epoch in range(3):
        seen = [i for step in range(4) for i in batch_at(4 * epoch + step, 12, 3, seed=5)]
        assert sorted(seen) == list(range(12))
    assert batch_at(0, 12, 3, seed=5) != batch_at(4, 12, 3, seed=5)
    assert sorted(batch_at(7, 2, 32, seed=0)) == [0, 1]


def test_random_state_and_other_gradients_are_left_alone() -> None:
    module, frozen = made(), nn.Linear(5, 5)
    inner = loss_of(module)

    def loss(index: Sequence[int]) -> Mapping[str, Tensor]:
        return {"loss": inner(index)["loss"] + frozen(X[index]).square().mean()}

    before = torch.get_rng_state()
    with torch.no_grad():
        train(module, loss, 40, replace(HOW, n_steps=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert frozen.weight.grad is None


def test_players_learn_each_from_its_own_term() -> None:
    """Two numbers that multiply: one wants the product small, the other wants it large."""
    module = nn.ModuleDict({"low": nn.Linear(1, 1, bias=False), "high": nn.Linear(1, 1, bias=False)})
    module["low"].weight.data.fill_(2.0)
    module["high"].weight.data.fill_(3.0)

    def loss(_: Sequence[int]) -> Mapping[str, Tensor]:
        product = (module["low"].weight * module["high"].weight).sum()
        return {"low": product, "high": -product}

    how = Training(1, 1, "sgd", lr=0.1, weight_decay=0, schedule="constant")
    done = train(module, loss, 1, how, players=dict(module.items()))
    # Nesterov's first step is 1.9 gradients long; both move from the same place.
    assert module["low"].weight.item() == pytest.approx(2 - 0.19 * 3)
    assert module["high"].weight.item() == pytest.approx(3 + 0.19 * 2)
    assert done.history == ({"low": 6.0, "high": -6.0},)


def test_the_milestones_of_comet() -> None:
    found = [rates("milestones", step, 200, 1)[0] for step in (0, 79, 80, 120, 160, 199)]
    assert found == pytest.approx([1.0, 1.0, 0.2, 0.04, 0.008, 0.008])


def test_parts_learn_at_their_own_rates() -> None:
    module = nn.ModuleDict({"fast": nn.Linear(1, 1), "slow": nn.Linear(1, 1)})
    for part in module.values():
        part.weight.data.zero_()
        part.bias.data.zero_()
    how = Training(1, 1, "sgd", 0.1, 2.0, schedule="constant", part_lr=(("slow.", 0.1),))
    train(module, lambda _: {"loss": -sum(p.sum() for p in module.parameters())}, 1, how)  # type: ignore[dict-item]
    found = {n: p.item() for n, p in module.named_parameters()}
    wanted = {"fast.weight": 0.19, "fast.bias": 0.38, "slow.weight": 0.019, "slow.bias": 0.038}
    assert found == pytest.approx(wanted)


def test_errors() -> None:
    with pytest.raises(InputError, match=r"There is nothing to train on: 0 samples were given\. Give at least one\."):
        train(made(), lambda _: {}, 0, HOW)
    module = nn.Linear(1, 1)
    with pytest.raises(InputError) as caught:
        train(module, lambda _: {"loss": module.weight.sum() * torch.nan}, 1, HOW)
    assert str(caught.value) == (
        "The loss is not finite at step 1. A smaller learning rate was expected: lr is 0.05. Give a tenth of it."
    )
    with pytest.raises(InputError, match="Training was given n_steps=0"):
        Training(0)
