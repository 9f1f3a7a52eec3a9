"""What a task over views gives its objective, and what follows a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from seewhy.learning.objectives.pictures import Beside, Vectors
from seewhy.learning.pretrain import Views
from seewhy.seeded import seeded
from seewhy.training.batches import Batch


class Counted(Beside):
    n = 0

    def after_step(self) -> None:
        self.n += 1


@dataclass(frozen=True)
class Heard(Vectors):
    """Keeps what it is given."""

    name: ClassVar[str] = "heard"
    n_views: int = 2
    momentum: float = 0.5
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def slow_views(self) -> int:
        return 1

    def state(self, width: int, n_classes: int, n_pictures: int, n_steps: int = 0) -> Beside:
        self.given["sizes"] = (width, n_classes, n_pictures, n_steps)
        return Counted()

    def loss(self, vectors: Tensor, labels: Tensor | None, state: Beside, slow: Tensor | None, index: Tensor) -> Tensor:
        self.given.update({"vectors": vectors, "labels": labels, "slow": slow, "index": index})
        return vectors.mean()


def made(**settings: Any) -> tuple[Views, Heard]:
    objective = Heard()
    with seeded(0):
        tower = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        sizes = {"width": 2, "n_classes": 3, "n_pictures": 9, "n_steps": 10}
        return Views(tower, nn.Linear(4, 2), objective, **sizes, **settings), objective


def batch() -> Batch:
    views = tuple(torch.randn(5, 3, generator=torch.Generator().manual_seed(i)) for i in range(3))
    return Batch([8, 2, 5, 0, 1], {"views": views, "labels": torch.tensor([0, 1, 2, 0, 1])})


def test_each_view_is_a_row_of_its_picture_and_the_last_goes_through_the_slow_copy() -> None:
    task, objective = made()
    task.train()
    assert task.needs == ("views", "labels")
    for p in task.network.parameters():
        p.data += 0.3  # the slow copy is behind now
    told = task.loss(task.features(batch()), batch())
    given, views = objective.given, batch()["views"]
    assert given["sizes"] == (2, 3, 9, 10)
    assert given["vectors"].shape == (5, 2, 2), "no more views than the objective has"
    for i in range(2):
        torch.testing.assert_close(given["vectors"][:, i], task.network.eval()(views[i]))
    assert task.slow is not None
    torch.testing.assert_close(given["slow"][:, 0], task.slow(views[1]))
    assert not torch.allclose(given["slow"][:, 0], given["vectors"][:, 1])
    assert given["index"].tolist() == [8, 2, 5, 0, 1]
    assert given["labels"].tolist() == [0, 1, 2, 0, 1]
    assert {*told} == {"loss", "spread"}


def test_norms_are_held_unless_they_are_not_to_be() -> None:
    for hold in (True, False):
        task, _ = made(hold=hold)
        task.train()
        task.features(batch())
        assert (task.network[0][1].num_batches_tracked.item() == 0) is hold  # type: ignore[index]


def test_spread_is_one_where_directions_are_even_and_none_where_they_are_one() -> None:
    task, _ = made()
    across = torch.tensor([[[1.0, 0.0], [-3.0, 0.0]], [[0.0, 2.0], [0.0, -2.0]]])
    two = Batch([0, 1], {"labels": torch.tensor([0, 1])})
    said = [task.loss({"vectors": v, "index": torch.tensor([0, 1])}, two) for v in (across, torch.ones(2, 2, 2))]
    assert [one["spread"].item() for one in said] == [pytest.approx(1.0), pytest.approx(0.0, abs=1e-6)]


def test_after_a_step_copy_and_objective_follow() -> None:
    task, _ = made()
    assert task.slow is not None
    before = task.slow.network[1].weight.clone()  # type: ignore[index]
    task.network[1].weight.data += 1.0  # type: ignore[index, operator]
    task.after_step()
    torch.testing.assert_close(task.slow.network[1].weight, before + 0.5)  # type: ignore[index]
    assert isinstance(task.beside, Counted)
    assert task.beside.n == 1
