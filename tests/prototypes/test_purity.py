"""Purity and its two optimisers: exact values, planted rotations, and the authors' numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import models

from seewhy.errors import InputError
from seewhy.progress import Progress
from seewhy.prototypes.cells import CellMaps
from seewhy.prototypes.epic.rotation import (
    Procrustes,
    mean_unit_peaks,
    peaks,
    polar,
    pure_cells,
    random_rotation,
    strongest,
)
from seewhy.prototypes.epic.training import Choice, PurityTable, choose, coherence, compare, mean_purity
from tiny import CLASSES, picture

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reproductions"))

from epic_adam import AdamSchedule, exponential, peak_loss, schedule

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "golden" / "epic.json").read_text())


def purity_loss(matrix: Tensor, cells: Tensor, channels: Tensor) -> Tensor:
    """Minus the mean purity, the peak of each picture of ``(b, s, d)`` found anew and not differentiated."""
    with torch.no_grad():
        at = torch.einsum("bsd,bd->bs", cells, matrix[channels]).argmax(1)
    return peak_loss(matrix, cells[torch.arange(len(cells)), at], channels)


def maps_of(cells: Tensor) -> CellMaps:
    """``(n, s, d)`` as they are kept."""
    maps = CellMaps(tuple(cells.shape))  # type: ignore[arg-type]
    for i, one in enumerate(cells):
        maps[i] = one
    return maps


def sources(n: int, d: int, seed: int, mixing: Tensor) -> CellMaps:
    """Cells in which one source at a time is active, seen through an orthogonal mixing."""
    draw = torch.Generator().manual_seed(seed)
    active = torch.randint(d, (n, 9), generator=draw)
    strength = 0.5 + torch.rand(n, 9, 1, generator=draw)
    return maps_of(strength * torch.nn.functional.one_hot(active, d).float() @ mixing)


def test_purity_is_one_alone_and_falls_with_company() -> None:
    alone = torch.zeros(1, 3, 4)
    alone[0, 1, 2] = 5.0
    together = torch.ones(1, 3, 4)
    low = torch.zeros(1, 3, 4)
    low[0, :, 2] = -1.0
    maps = maps_of(torch.cat([alone, together, low]))
    of = torch.tensor([[0, 1, 2]] * 4)
    found = pure_cells(maps, torch.eye(4), of)[1]
    assert found[2].tolist() == [1.0, 0.5, -1.0]
    assert pure_cells(maps, torch.eye(4), of, sign=-1)[1][2].tolist() == [0.0, -0.5, 1.0]
    # Nothing at all is active in the first cell of the first picture: no division by zero.
    assert found[0, 0] == 0


def test_prototypes_are_the_largest_sums_and_boxes_the_largest_cells() -> None:
    cells = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0)).half().float()
    maps, rotation = maps_of(cells), random_rotation(4, 1)
    sums = torch.einsum("kd,nsd->nks", rotation, cells).sum(2)
    of = strongest(maps.pooled, rotation, 2)
    assert torch.equal(of, sums.topk(2, dim=0).indices.T)
    assert torch.equal(strongest(maps.pooled, rotation, 2, -1), (-sums).topk(2, dim=0).indices.T)
    for at in peaks(maps, rotation, of):
        for channel, rank, cell in zip(at.channels, at.ranks, at.cells, strict=True):
            assert of[channel, rank] == at.picture
            assert cell == (cells[at.picture] @ rotation[channel]).argmax()


def test_purity_of_a_rotation_is_the_loss_of_the_papers_optimiser() -> None:
    cells = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(0)).half().float()
    maps = maps_of(cells)
    matrix = exponential(0.4 * torch.randn(4, 4, generator=torch.Generator().manual_seed(1)), "orthogonal")
    of = strongest(maps.pooled, matrix, 3)
    found = pure_cells(maps, matrix, of)[1]
    channels = torch.arange(4).repeat_interleave(3)
    assert float(-purity_loss(matrix, cells[of.reshape(-1)], channels)) == pytest.approx(float(found.mean()), abs=1e-6)
    assert torch.allclose(PurityTable.of(maps, matrix).by_channel(m=3), found.mean(1))


def test_procrustes_finds_planted_directions_that_also_hold_on_other_pictures() -> None:
    # A slight turn away from the axes, as a trained network's features are.
    mixing = exponential(0.25 * torch.randn(8, 8, generator=torch.Generator().manual_seed(3)), "orthogonal")
    fit, other = sources(200, 8, 0, mixing), sources(200, 8, 1, mixing)
    rotation = Procrustes(n_prototypes=20, shrinkage=0.0, n_rounds=6).fit(fit)
    assert mean_purity(other, torch.eye(8)) < 0.95
    assert mean_purity(other, rotation) > 0.999
    assert torch.allclose(rotation @ rotation.T, torch.eye(8), atol=1e-5)
    assert float((rotation @ mixing.T).abs().max(1).values.min()) > 0.999


def test_rounds_never_lower_purity_and_shrinkage_holds_back() -> None:
    mixing = random_rotation(8, 3)
    fit = sources(100, 8, 0, mixing)
    found = [mean_purity(fit, r, 10) for r in Procrustes(n_prototypes=10, shrinkage=0.0, n_rounds=5).rounds(fit)]
    assert found[-1] > found[0] > mean_purity(fit, torch.eye(8), 10)
    held = Procrustes(n_prototypes=10, shrinkage=1e6, n_rounds=2).fit(fit)
    assert torch.allclose(held, torch.eye(8), atol=1e-4)


def test_channels_that_are_not_rotated_stay_as_they_are() -> None:
    fit = sources(100, 8, 0, random_rotation(8, 3))
    matrix = Procrustes(n_rotated=3, shrinkage=0.0).fit(fit)
    moved = fit.pooled.square().mean(0).topk(3).indices
    still = torch.tensor([i for i in range(8) if i not in moved.tolist()])
    assert torch.equal(matrix[still], torch.eye(8)[still])
    assert not torch.allclose(matrix[moved], torch.eye(8)[moved], atol=0.05)


def test_noise_is_not_worth_rotating() -> None:
    draw = torch.Generator().manual_seed(0)
    fit, held = (maps_of(torch.rand(30, 4, 16, generator=draw) * torch.eye(16).repeat(2, 1)[:4]) for _ in range(2))
    found = choose(fit, held, {}, Progress())
    assert found.tried[0]["rotation"] == "none"
    best = max(row["purity"] for row in found.tried)
    assert mean_purity(held, found.rotation) == pytest.approx(best, abs=1e-5)
    assert (found.how is None) == (best == found.tried[0]["purity"])


def test_what_the_user_fixed_is_not_tried_otherwise() -> None:
    fit = sources(40, 8, 0, random_rotation(8, 3))
    found = choose(fit, fit, {"shrinkage": 0.3, "n_prototypes": 7, "n_rotated": 5}, Progress())
    compared, chosen = found.tried[1:]
    assert compared == {**chosen, "n_rounds": 3, "purity": compared["purity"]}
    assert (chosen["n_prototypes"], chosen["shrinkage"], chosen["n_rotated"]) == (7, 0.3, 5)
    assert chosen["purity"] >= compared["purity"]


def test_the_chosen_setting_is_fitted_to_all_pictures_in_the_end() -> None:
    fit = sources(40, 8, 0, random_rotation(8, 3))
    found = choose(fit, fit, {}, Progress())
    assert found.how is not None
    more = sources(80, 8, 1, random_rotation(8, 3))
    assert torch.equal(found.refitted(more).rotation, found.how.fit(more))
    none = Choice(torch.eye(8), None, [])
    assert none.refitted(more) is none


def test_several_numbers_of_prototypes_are_averaged_over() -> None:
    fit = sources(60, 8, 0, random_rotation(8, 3))
    of = strongest(fit.pooled, torch.eye(8), 16)
    parts = [mean_unit_peaks(fit, torch.eye(8), of[:, :m]) for m in (2, 8, 16)]
    wanted = polar(torch.stack(parts).mean(0) + 0.1 * torch.eye(8))
    (found,) = Procrustes(n_prototypes=8, shrinkage=0.1, n_rounds=1).rounds(fit)
    assert torch.allclose(found, wanted, atol=1e-5)
    (plain,) = Procrustes(n_prototypes=8, shrinkage=0.1, n_rounds=1, scales=(1.0,)).rounds(fit)
    assert torch.allclose(plain, polar(parts[1] + 0.1 * torch.eye(8)), atol=1e-5)


def test_the_comparison_has_a_real_gain_where_there_is_one_and_none_where_there_is_none() -> None:
    mixing = exponential(0.25 * torch.randn(8, 8, generator=torch.Generator().manual_seed(3)), "orthogonal")
    held = sources(60, 8, 1, mixing)
    real = compare(held, mixing, 0)
    assert real["purity"] == pytest.approx(1, abs=2e-3)
    assert real["gain_interval"][0] > 0
    assert real["random"] < real["purity"]
    none = compare(held, torch.eye(8), 0)
    assert none["gain"] == 0
    assert none["gain_interval"] == [0, 0]


def test_the_interval_is_what_95_of_100_random_halves_give() -> None:
    """Of ten pictures a half has five, so that all of them count: its gain is their mean.

    Turned by 45°, a picture of both channels loses ``1/√2 - 1/2`` of its purity and one of a single channel gains as
    much. Less than 1 half in 100 has none or all five of the second kind, and 1 in 10 each has one or four: there the
    95 % end.
    """
    both, single = torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 0.0]])
    turn = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
    found = compare(maps_of(torch.stack([both, single] * 5)), turn, 0)
    low, high = found["gain_interval"]
    apart = 2**0.5 - 1
    assert high - low == pytest.approx((4 - 1) / 5 * apart, abs=2e-4)
    assert (low + high) / 2 == pytest.approx(found["gain"], abs=0.05 * apart)


def test_coherence_is_one_for_channels_of_one_class_and_chance_for_none() -> None:
    labels = torch.arange(4).repeat_interleave(5)
    assert coherence(torch.nn.functional.one_hot(labels, 4).float(), torch.eye(4), labels) == 1
    shuffled = labels[torch.randperm(20, generator=torch.Generator().manual_seed(0))]
    assert coherence(torch.nn.functional.one_hot(labels, 4).float(), torch.eye(4), shuffled) < 0.7


def test_adam_raises_purity_on_planted_directions() -> None:
    mixing = exponential(0.25 * torch.randn(8, 8, generator=torch.Generator().manual_seed(3)), "orthogonal")
    fit = sources(60, 8, 0, mixing)
    losses: list[float] = []
    how = AdamSchedule(learning_rate=0.02, batch_size=64, n_start=12)
    rotation = how.fit(fit, after=lambda _step, loss: losses.append(loss))
    assert mean_purity(fit, rotation) > max(mean_purity(fit, torch.eye(8)), 0.98)
    assert torch.allclose(rotation @ rotation.T, torch.eye(8), atol=1e-4)
    assert min(losses) >= -1


def test_adam_stops_after_the_steps_asked_for() -> None:
    steps: list[int] = []
    fit = sources(30, 6, 0, random_rotation(6, 3))
    AdamSchedule(batch_size=32, max_steps=3).fit(fit, after=lambda step, _loss: steps.append(step))
    assert steps == [1, 2, 3]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="n_prototypes"):
        Procrustes(n_prototypes=0)
    cells = torch.full((1, 2, 3), 1e6)
    with pytest.raises(InputError, match=r"Features must be below 65,504 .* picture 1 exceeds"):
        maps_of(cells)


@pytest.fixture(scope="module")
def authors_features() -> tuple[Tensor, Any]:
    """The last map of a ResNet-18 of seed 0 on 24 textures, as the authors' code saw it."""
    with torch.random.fork_rng():
        torch.manual_seed(GOLDEN["seed"])
        network = models.resnet18(weights=None).eval()
    pixels = np.stack([picture(label, i, 64) for label in CLASSES for i in range(6)])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        features = torch.nn.Sequential(*list(network.children())[:-2])(batch)
    values = GOLDEN["values"]["features"]
    assert float(features.mean()) == pytest.approx(values["mean"], rel=1e-4)
    return features.flatten(2).transpose(1, 2).contiguous(), network.fc


def test_prototypes_purity_and_steps_are_the_authors(authors_features: tuple[Tensor, Any]) -> None:
    cells, layer = authors_features
    values, tolerance = GOLDEN["values"], GOLDEN["tolerance"]
    pooled = cells.mean(1)
    of = strongest(pooled, torch.eye(512), 5)
    assert of[:16].tolist() == values["prototypes_before"]
    pictures, channels = of.reshape(-1)[:512], torch.arange(512).repeat_interleave(5)[:512]
    raw = torch.zeros(512, 512, requires_grad=True)
    adam = torch.optim.Adam([raw], lr=AdamSchedule.learning_rate, weight_decay=AdamSchedule.weight_decay)
    for step, expected in enumerate(values["losses"]):
        matrix = exponential(raw, "orthogonal")
        loss = purity_loss(matrix, cells[pictures], channels)
        assert float(loss.detach()) == pytest.approx(expected, abs=tolerance)
        adam.zero_grad()
        loss.backward()
        if step == 0:
            assert raw.grad is not None
            assert float(raw.grad.norm()) == pytest.approx(values["gradient"]["norm"], rel=tolerance)
            assert torch.allclose(raw.grad[:4, :4], torch.tensor(values["gradient"]["corner"]), atol=1e-6)
        adam.step()
    assert float(raw.detach().norm()) == pytest.approx(values["raw_norm"], rel=1e-3)
    _after(cells, layer, exponential(raw.detach(), "orthogonal"))


def _after(cells: Tensor, layer: Any, rotation: Tensor) -> None:
    """With the matrix after three steps: prototypes, purity, the channels shown and their share."""
    values, tolerance = GOLDEN["values"], GOLDEN["tolerance"]
    pooled = cells.mean(1)
    of = strongest(pooled, rotation, 5)
    assert of[:16].tolist() == values["prototypes_after"]
    for matrix, name in ((rotation, "purity_after"), (torch.eye(512), "purity_before")):
        chosen = strongest(pooled, matrix, 5)
        found = [-float(purity_loss(matrix, cells[chosen[:, j]], torch.arange(512))) for j in range(5)]
        assert sum(found) / 5 == pytest.approx(values[name], abs=tolerance)
    decided = layer(pooled).argmax(1)
    # The authors' scores: the weights behind the rotation times what is above zero.
    scores = (layer.weight[decided] @ rotation.T * (pooled @ rotation.T).clamp(min=0)).detach()
    for picture_index, expected in zip((0, 7, 13, 20), values["channels"], strict=True):
        assert scores[picture_index].topk(4).indices.tolist() == expected
    share = scores.topk(4, 1).values.sum(1) / scores.clamp(min=0).sum(1)
    assert torch.allclose(share, torch.tensor(values["top_4_share"]), atol=tolerance)


def test_the_loss_of_an_invertible_matrix_is_the_authors(authors_features: tuple[Tensor, Any]) -> None:
    cells, _ = authors_features
    values = GOLDEN["values"]["invertible"]
    of = strongest(cells.mean(1), torch.eye(512), 5)
    pictures, channels = of.reshape(-1)[:512], torch.arange(512).repeat_interleave(5)[:512]
    raw = torch.zeros(512, 512, requires_grad=True)
    at = cells[pictures].gather(2, channels[:, None, None].expand(-1, 4, 1))[..., 0].argmax(1)
    loss = peak_loss(exponential(raw, "invertible"), cells[pictures, at], channels)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(values["loss"], abs=1e-5)
    assert raw.grad is not None
    assert float(raw.grad.norm()) == pytest.approx(values["gradient_norm"], rel=1e-4)


def test_the_schedule_of_the_paper() -> None:
    assert [schedule(t) for t in range(10)] == [100, 90, 81, 71, 62, 52, 43, 33, 24, 14]
