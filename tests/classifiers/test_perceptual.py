"""A perceiver: loops, disturbances, memorised pictures that attract, and a talk that settles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seewhy.classifiers.disturbances import disturb
from seewhy.classifiers.perceptual import Perceptual
from seewhy.classifiers.perceptual_network import Loop, Shape, cosid, dialogue, grey, orbit
from seewhy.classifiers.saving import load
from seewhy.data import load_samples
from seewhy.errors import InputError
from tiny import class_folders, tiny_cnn


class Halfway(nn.Module):
    """Half of the way to a fixed picture: what is seen settles there."""

    def __init__(self, home: Tensor) -> None:
        super().__init__()
        self.home = home

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.home) / 2


HOME = torch.linspace(0, 1, 36).view(1, 1, 6, 6)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cosid_is_cosine_less_the_number() -> None:
    assert cosid(torch.tensor([0.0, torch.pi])).tolist() == pytest.approx([1.0, -1 - torch.pi])


def test_vanilla_perception_is_the_map_thirty_times() -> None:
    observed = torch.ones(2, 1, 6, 6)
    seen = Loop("vanilla", n_loops=3).see(Halfway(HOME), observed)
    torch.testing.assert_close(seen, HOME + (observed - HOME) / 8)
    settled = Loop("vanilla").see(Halfway(HOME), observed)
    torch.testing.assert_close(settled, HOME.expand(2, -1, -1, -1), atol=1e-6, rtol=0)


def test_without_a_loop_the_picture_is_seen_as_it_is() -> None:
    assert Loop("none").see(Halfway(HOME), HOME) is HOME


def test_stochastic_perception_averages_disturbed_copies_and_is_alike_alone_and_in_a_batch() -> None:
    observed = torch.rand(3, 1, 6, 6, generator=seeded())
    loop, still = Loop("stochastic", 4, 16), nn.Identity()
    seen = loop.see(still, observed)
    assert not torch.allclose(seen, observed, atol=0.01)
    torch.testing.assert_close(seen, torch.cat([loop.see(still, one) for one in observed.split(1)]))
    settled = Loop("stochastic", 30, 4).see(Halfway(HOME), observed)
    torch.testing.assert_close(settled, HOME.expand(3, -1, -1, -1), atol=1e-4, rtol=0)
    only_one = Loop("stochastic", 1, 1, alpha=0.5, seed=7)
    torch.testing.assert_close(only_one.see(still, HOME), disturb(HOME, 0.5, seeded(7)))


def test_a_disturbance_of_no_strength_changes_nothing_and_of_any_strength_stays_in_its_ranges() -> None:
    pictures = torch.rand(8, 1, 12, 12, generator=seeded())
    torch.testing.assert_close(disturb(pictures, 0.0, seeded()), pictures, atol=1e-5, rtol=0)
    flat = torch.full((64, 1, 16, 16), 0.5)
    middle = disturb(flat, 1.0, seeded())[:, :, 6:10, 6:10].mean((1, 2, 3))
    # Middle grey has no contrast, and blur and geometry leave a flat picture flat: brightness alone is seen.
    assert middle.min() > 0.5 * 0.8 - 0.03
    assert middle.max() < 0.5 * 1.2 + 0.03
    assert middle.std() > 0.03


def test_geometry_moves_a_spot_by_a_tenth_at_most_of_the_picture_and_of_its_own_distance() -> None:
    spot = torch.zeros(200, 1, 41, 41)
    spot[:, :, 18:23, 18:23] = 1
    moved = disturb(spot, 1.0, seeded()).clamp(min=0)
    weight = moved.sum((1, 2, 3))
    across = (moved.sum((1, 2)) * torch.arange(41.0)).sum(1) / weight - 20
    assert across.abs().max() < 0.14 * 41
    assert across.abs().mean() > 0.02 * 41
    size = (moved > 0.4).sum((1, 2, 3)).float()
    assert size.min() > 25 * 0.7**2 * 0.6
    assert size.max() < 25 * 1.3**2 * 1.6


def test_grey_is_luma() -> None:
    colours = torch.eye(3).view(3, 3, 1, 1)
    assert grey(colours).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])


def test_a_talk_of_two_settles_to_what_each_of_them_sees() -> None:
    first, second = Halfway(HOME), Halfway(1 - HOME)
    talk = dialogue(first, second, torch.zeros(1, 1, 6, 6), n=40)
    assert talk.shape == (81, 1, 1, 6, 6)
    # x = (y + h) / 2 and y = (x + 1 - h) / 2 meet at x = (1 + h) / 3 and y = (2 - h) / 3.
    torch.testing.assert_close(talk[-2], (1 + HOME) / 3, atol=1e-6, rtol=0)
    torch.testing.assert_close(talk[-1], (2 - HOME) / 3, atol=1e-6, rtol=0)
    assert (talk[-1] - talk[-2]).abs().max() > 0.1


@pytest.mark.parametrize(("memory", "side"), [("dense", 12), ("convolutional", 12), ("convolutional", 28)])
def test_a_memory_redraws_pictures_of_the_size_it_was_given(memory: str, side: int) -> None:
    drawn, judge = Shape(side, memory, 8, 3, 4).make()
    assert drawn(torch.rand(2, 1, side, side)).shape == (2, 1, side, side)
    assert judge(torch.rand(2, 1, side, side)).shape == (2, 4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), 5)


@pytest.fixture(scope="module")
def recipe() -> Perceptual:
    return Perceptual("vanilla", side=8, width=64, depth=8, memory_steps=500, judge_epochs=60, n_loops=20)


def test_memorised_pictures_attract_and_the_classifier_is_the_same_once_saved(
    recipe: Perceptual, folders: Path, tmp_path: Path
) -> None:
    made = recipe.fit(tiny_cnn(), load_samples(folders))
    network = made.network
    assert network is not None
    assert made.measures["reconstruction"] < 0.3
    known = network.known  # type: ignore[attr-defined]
    near = known + 0.02 * torch.randn(known.shape, generator=seeded())
    *_, settled = (x for _, x in zip(range(20), orbit(network.memory, near), strict=False))  # type: ignore[attr-defined]
    distances = torch.cdist(settled.flatten(1), known.flatten(1))
    assert (distances.argmin(1) == torch.arange(len(known))).float().mean() > 0.35  # chance is 1 in 12
    again = load(made.save(tmp_path / "model"), encoder=tiny_cnn())
    name = str(next(folders.rglob("*.png")))
    assert again.predict(name) == made.predict(name)
    assert again.explain(name, measure=False).where.method == "hires_cam"
    assert again.encoder.fingerprint == made.encoder.fingerprint


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(InputError, match="The forms are stochastic, vanilla and none"):
        Perceptual("crystal")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Numbers above zero"):
        Perceptual(n_copies=0)
