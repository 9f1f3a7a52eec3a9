"""Views whose cells learn from one another: terms by hand, the slow copy, levels, whole views, exact resume."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.encoders.base import Layout
from seewhy.errors import InputError
from seewhy.learning.encoders.projection import Projection
from seewhy.learning.encoders.pyramid import Pyramid, stages_of
from seewhy.learning.objectives.regional import PixPro
from seewhy.learning.pretrain import Cells, DenseViews, OneMap, spread
from seewhy.training.batches import Batch, TrainingData
from seewhy.training.loop import Training, train

N = 8
BOXES = torch.tensor([[[0.0, 0.0, 0.8, 0.8]] * N, [[0.2, 0.0, 1.0, 1.0]] * N])
FLIPPED = torch.tensor([[False] * N, [True] * N])


def views() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(N, 3, 16, 16, generator=draw), torch.randn(N, 3, 16, 16, generator=draw)


def trunk() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Conv2d(6, 4, 2, 2))


HEAD = Projection("mlp", 5, normalised=True)


def task(objective: PixPro, maps: Callable[[], nn.Module] = lambda: OneMap(trunk(), Layout())) -> DenseViews:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DenseViews(maps(), HEAD, objective, n_in=4, n_steps=6)


def batch() -> Batch:
    return Batch(list(range(N)), {"views": views(), "boxes": BOXES, "flipped": FLIPPED})


def data() -> TrainingData:
    x, y = views()
    columns: dict[str, Any] = {
        "views": lambda index, draw: (x[index], y[index]),
        "boxes": lambda index, draw: BOXES[:, index],
        "flipped": lambda index, draw: FLIPPED[:, index],
    }
    return TrainingData(N, columns)


def test_each_view_learns_from_the_slow_copys_look_at_the_other() -> None:
    objective, (x, y) = PixPro(), views()
    made = task(objective).train()
    made.slow.network.cells.head[3].bias.add_(0.5)  # so that the copy differs
    terms = made.loss(made.features(batch()), batch())
    own = [made.branch(view)["cells"][0] for view in (x, y)]
    slow = [made.slow(view)["cells"][0] for view in (x, y)]
    forth = objective(own[0], slow[1], BOXES, FLIPPED, made.beside)
    back = objective(own[1], slow[0], BOXES.flip(0), FLIPPED.flip(0), made.beside)
    torch.testing.assert_close(terms["loss"], forth + back)
    assert set(terms) == {"loss", "cells", "spread"}


def test_whole_views_are_predicted_then_pooled_and_have_their_weight() -> None:
    objective, (x, y) = PixPro(instance_weight=0.5, cell_weight=2.0), views()
    made = task(objective).train()
    terms = made.loss(made.features(batch()), batch())
    assert made.predictor is not None
    whole = torch.zeros(())
    for one, other in ((x, y), (y, x)):
        said = made.predictor(made.branch(one)["whole"]).mean((2, 3))
        whole = whole + objective.whole(said, made.slow(other)["whole"].mean((2, 3)))
    torch.testing.assert_close(terms["whole"], whole.detach())
    torch.testing.assert_close(terms["loss"], 2.0 * terms["cells"] + 0.5 * whole)
    assert -4 <= float(terms["whole"]) <= 4


def test_a_head_on_cells_is_a_convolution_of_one_cell() -> None:
    cells, layer = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(2)), nn.Linear(4, 6)
    wanted = torch.nn.functional.conv2d(cells, layer.weight[:, :, None, None], layer.bias)
    torch.testing.assert_close(Cells(layer)(cells), wanted)


def test_the_whole_is_of_the_coarsest_level() -> None:
    def maps() -> nn.Module:
        made = trunk()
        return Pyramid(made, Layout(), stages_of(made, Layout(), (16, 16)), 4)

    found = task(PixPro(instance_weight=1.0), maps).branch(views()[0])
    assert tuple(found["whole"].shape) == (N, 5, 2, 2)


def test_levels_count_alike() -> None:
    def maps() -> nn.Module:
        made = trunk()
        return Pyramid(made, Layout(), stages_of(made, Layout(), (16, 16)), 4)

    made, (x, y) = task(PixPro(form="plain"), maps).train(), views()
    terms = made.loss(made.features(batch()), batch())
    own, slow = made.branch(x)["cells"], made.slow(y)["cells"]
    back_own, back_slow = made.branch(y)["cells"], made.slow(x)["cells"]
    assert [tuple(level.shape[2:]) for level in own] == [(4, 4), (2, 2)]
    each = [
        made.objective(a, b, BOXES, FLIPPED, made.beside)
        + made.objective(c, d, BOXES.flip(0), FLIPPED.flip(0), made.beside)
        for a, b, c, d in zip(own, slow, back_own, back_slow, strict=True)
    ]
    torch.testing.assert_close(terms["loss"], sum(each) / 2)


def test_the_copy_follows_and_learns_nothing_itself() -> None:
    made = task(PixPro(momentum=0.5))
    before = made.slow.network.cells.head[0].weight.clone()
    assert not any(name.startswith("slow") for name, _ in made.named_parameters())
    train(made, data(), Training(2, N, lr=1e-2))
    assert not torch.equal(made.slow.network.cells.head[0].weight, before)
    assert not torch.equal(made.slow.network.cells.head[0].weight, made.branch.cells.head[0].weight)
    assert int(made.slow.step) == 2


def test_batch_normalisations_of_the_maps_stay_and_those_of_heads_do_not() -> None:
    made = task(PixPro(), lambda: OneMap(nn.Sequential(trunk(), nn.BatchNorm2d(4)), Layout())).train()
    made.features(batch())
    assert not made.branch.maps.trunk[1].running_mean.any()
    assert not made.slow.network.maps.trunk[1].running_mean.any()
    assert made.branch.cells.head[1].running_mean.any()


def test_stopped_and_started_again_it_ends_at_the_same_weights(tmp_path: Path) -> None:
    how = Training(6, 4, lr=1e-2, checkpoint_every=1)

    def run(checkpoint: Path | None, stop: int | None = None) -> DenseViews:
        made = task(PixPro(instance_weight=1.0))

        class Stopped(Exception):
            pass

        if stop is not None:
            kept, count = made.after_step, iter(range(100))

            def after() -> None:
                kept()
                if next(count) == stop:
                    raise Stopped

            made.after_step = after  # type: ignore[method-assign]
        with contextlib.suppress(Stopped):
            train(made, data(), how, checkpoint=None if checkpoint is None else (checkpoint, "same"))
        return made

    whole = run(None)
    run(tmp_path / "c", stop=3)
    again = run(tmp_path / "c")
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_parts_of_a_batch_are_refused_where_heads_are_normalised_over_it() -> None:
    with pytest.raises(
        InputError, match=r"Put the batch normalisation into evaluation mode, or do not split the batch\."
    ):
        train(task(PixPro()), data(), Training(1, N, micro_batch=4))


def test_parts_of_a_batch_are_as_the_whole_where_heads_are_not() -> None:
    def plain(micro: int | None) -> DenseViews:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = DenseViews(OneMap(trunk(), Layout()), Projection("linear", 5), PixPro(instance_weight=1.0),
                              n_in=4, n_steps=2)  # fmt: skip
        train(made, data(), Training(2, N, lr=1e-2, micro_batch=micro))
        return made

    for a, b in zip(plain(None).state_dict().values(), plain(3).state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_spread_is_one_less_the_square_of_the_mean_direction() -> None:
    cells = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(1))
    rows = torch.nn.functional.normalize(cells, dim=1).permute(0, 2, 3, 1).reshape(-1, 5)
    assert float(spread(7 * cells)) == pytest.approx(1 - float(rows.mean(0).square().sum()), rel=1e-5)
