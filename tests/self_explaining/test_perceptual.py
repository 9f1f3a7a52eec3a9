"""A perceiver: loops, disturbances, memorised pictures that attract, and a talk that settles."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.saving import load
from seewhy.encoders.split import freeze
from seewhy.errors import DataError, InputError
from seewhy.heads.head import Head
from seewhy.heads.normalise import Normalise
from seewhy.learning.self_explaining.perceptual import (
    Cosid,
    Loop,
    Perceptual,
    PerceptualNetwork,
    Shape,
    _grid,
    disturb,
    grey,
    orbit,
)
from seewhy.pictures.samples import load_samples
from tiny import class_folders, tiny_cnn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reproductions"))

from dialogue import dialogue, talk


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
    assert Cosid()(torch.tensor([0.0, torch.pi])).tolist() == pytest.approx([1.0, -1 - torch.pi])


def test_vanilla_perception_is_the_map_thirty_times() -> None:
    observed = torch.ones(2, 1, 6, 6)
    seen = Loop("vanilla", n_loops=3).perceive(Halfway(HOME), observed)
    torch.testing.assert_close(seen, HOME + (observed - HOME) / 8)
    settled = Loop("vanilla").perceive(Halfway(HOME), observed)
    torch.testing.assert_close(settled, HOME.expand(2, -1, -1, -1), atol=1e-6, rtol=0)


def test_without_a_loop_the_picture_is_seen_as_it_is() -> None:
    assert Loop("none").perceive(Halfway(HOME), HOME) is HOME


def test_stochastic_perception_averages_disturbed_copies_and_is_alike_alone_and_in_a_batch() -> None:
    observed = torch.rand(3, 1, 6, 6, generator=seeded())
    loop, still = Loop("stochastic", 4, 16), nn.Identity()
    seen = loop.perceive(still, observed)
    assert not torch.allclose(seen, observed, atol=0.01)
    torch.testing.assert_close(seen, torch.cat([loop.perceive(still, one) for one in observed.split(1)]))
    settled = Loop("stochastic", 30, 4).perceive(Halfway(HOME), observed)
    torch.testing.assert_close(settled, HOME.expand(3, -1, -1, -1), atol=1e-4, rtol=0)
    only_one = Loop("stochastic", 1, 1, alpha=0.5, seed=7)
    torch.testing.assert_close(only_one.perceive(still, HOME), disturb(HOME, 0.5, seeded(7)))


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


GEOMETRY = ("left", "right", "top", "bottom", "scale_x", "scale_y", "shift_x", "shift_y", "angle", "shear")


def drawing(**given: float) -> Callable[[float, float], Tensor]:
    """Instead of chance: the numbers given, and for all others those that change nothing."""
    names = iter(GEOMETRY)

    def draw(low: float, high: float) -> Tensor:
        name = next(names)
        value = given.get(name, 1.0 if name.startswith("scale") else 0.0)
        assert low <= value <= high, name
        return torch.tensor([value])

    return draw


def test_a_shifted_spot_lands_a_tenth_to_the_right_and_a_twentieth_up() -> None:
    spot = torch.zeros(1, 1, 40, 40)
    spot[0, 0, 20, 10] = 1
    moved = grid_sample(spot, _grid(spot, 1.0, drawing(shift_x=0.1, shift_y=-0.05)), align_corners=False)
    expected = torch.zeros(1, 1, 40, 40)
    expected[0, 0, 18, 14] = 1
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)


def test_geometry_is_a_crop_then_scale_turn_shear_and_shift() -> None:
    """The place a pixel is read from, moved by the five in turn, is the pixel's own place."""
    sizes = (0.03, 0.01, 0.0, 0.04, 0.8, 1.25, 0.07, -0.09, 9.0, 5.0)
    pictures = torch.zeros(1, 1, 6, 6)
    read = _grid(pictures, 1.0, drawing(**dict(zip(GEOMETRY, sizes, strict=True))))[0]
    angle, slant = math.radians(9.0), math.tan(math.radians(5.0))
    cropped = (read - torch.tensor([0.03 - 0.01, 0.0 - 0.04])) / torch.tensor([1 - 0.03 - 0.01, 1 - 0.0 - 0.04])
    x, y = (cropped * torch.tensor([0.8, 1.25])).unbind(2)
    x, y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
    landed = torch.stack([x - slant * y + 2 * 0.07, y + 2 * -0.09], 2)
    own = affine_grid(torch.eye(2, 3)[None], [1, 1, 6, 6], align_corners=False)[0]
    torch.testing.assert_close(landed, own, atol=1e-5, rtol=0)


def test_contrast_has_its_range_and_every_second_picture_is_blurred(monkeypatch: pytest.MonkeyPatch) -> None:
    """With geometry and blur left out, black becomes ``(1 - contrast) / 2`` and grey 1/2, both times brightness."""
    sigmas: list[Tensor] = []

    def still(pictures: Tensor, _strength: float, _draw: object) -> Tensor:
        return affine_grid(torch.eye(2, 3).expand(len(pictures), -1, -1), list(pictures.shape), align_corners=False)

    def sharp(pictures: Tensor, sigma: Tensor) -> Tensor:
        sigmas.append(sigma)
        return pictures

    monkeypatch.setattr("seewhy.learning.self_explaining.perceptual._grid", still)
    monkeypatch.setattr("seewhy.learning.self_explaining.perceptual._blur", sharp)
    pictures = torch.zeros(1000, 1, 16, 16)
    pictures[..., 8:] = 0.5
    black, grey_half = (half.mean((1, 2, 3)) for half in disturb(pictures, 1.0, seeded()).split(8, 3))
    contrast = 1 - black / grey_half
    assert 0.71 < contrast.min() < 0.78
    assert 1.47 < contrast.max() < 1.54
    assert float(contrast.mean()) == pytest.approx(1.125, abs=0.03)
    assert float(2 * grey_half.mean()) == pytest.approx(1, abs=0.02)
    blurred = sigmas[0][sigmas[0] > 0]
    assert len(blurred) == pytest.approx(500, abs=60)
    assert 0.59 < blurred.max() <= 0.6
    assert float(blurred.mean()) == pytest.approx(0.3, abs=0.03)


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


def planted(form: str, decides: int) -> Classifier:
    """A perceiver whose memory is known: everything it redraws comes nearer to one picture, of class 1."""
    shape = Shape(6, "dense", 4, 1, 2)
    judge = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    judge[1].weight.data.zero_()
    judge[1].bias.data = torch.tensor([5.0, 0.0] if decides == 0 else [0.0, 5.0])
    memory: Any = nn.Sequential(Halfway(HOME))
    known = torch.cat([1 - HOME, HOME])
    loop = Loop(form, n_loops=12, n_copies=3)  # type: ignore[arg-type]
    network = PerceptualNetwork(
        tiny_cnn(), shape, loop, memory, freeze(judge), known, ("a.png", "b.png"), torch.tensor([0, 1])
    )
    return Classifier(
        "perceptual", {}, network.encoder(), ("left", "right"), Head(Normalise(), torch.eye(2)), network=network
    )


PHOTO = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)


def test_what_was_seen_is_on_the_card_with_the_memorised_picture_that_it_gives_away() -> None:
    seen = planted("vanilla", 1).explain(PHOTO, measure=False).seen
    assert seen is not None
    assert (seen.loops, seen.n_copies, seen.spread) == ((0, 1, 2, 3, 5, 8, 12), 1, 0)
    assert np.abs(seen.picture.astype(int) - np.rint(HOME[0, 0].numpy() * 255)).max() <= 1
    assert (seen.nearest.image, seen.nearest.label) == ("b.png", "right")
    assert seen.nearest.distance < 0.001
    # Halfway to HOME in each loop: what the twelfth moved is as much as was left after it.
    assert seen.moved == pytest.approx(seen.nearest.distance, rel=0.01)
    assert seen.verdict.level == "believable"
    assert "is not yours but a training picture of right" in seen.verdict.sentence


def test_a_decision_that_the_seen_picture_does_not_show_is_half_believed_and_an_unsettled_one_not_at_all() -> None:
    made = planted("vanilla", 0)
    other = made.explain(PHOTO, measure=False).seen
    assert other is not None
    assert (other.verdict.level, "not left" in other.verdict.sentence) == ("partly", True)
    hasty = replace(made, network=replace(made.network, loop=Loop("vanilla", n_loops=1)))  # type: ignore[type-var]
    seen = hasty.explain(PHOTO, measure=False).seen
    assert seen is not None
    assert (seen.verdict.level, "still changing" in seen.verdict.figures) == ("do not rely", True)


def test_copies_are_told_and_without_a_loop_there_is_nothing_to_show() -> None:
    seen = planted("stochastic", 1).explain(PHOTO, measure=False).seen
    assert seen is not None
    assert seen.n_copies == 3
    assert "3 copies end at a distance of " in seen.verdict.figures
    plain = planted("none", 1).explain(PHOTO, measure=False)
    assert plain.seen is None
    assert "seen" not in plain.to_json()


def test_every_form_of_the_card_shows_what_was_seen() -> None:
    e = planted("vanilla", 1).explain(PHOTO, measure=False)
    page, data = e.to_html(), e.to_json()["seen"]
    assert all(text in page for text in ("What it saw", "def-memorised", "after 12 loops", e.seen.verdict.rule))  # type: ignore[union-attr]
    assert (data["loops"], data["nearest"]["label"], data["verdict"]) == (12, "right", "believable")
    assert np.array(data["picture"]).shape == (6, 6)
    without = replace(e, seen=None)
    assert "What it saw" not in without.to_html()
    heights = [Image.open(io.BytesIO(x.to_png())).height for x in (e, without)]
    assert heights[0] > heights[1] + 200


def test_what_is_not_a_number_is_shown_as_grey_and_never_believed() -> None:
    made = planted("vanilla", 1)
    lost = replace(made, network=replace(made.network, memory=nn.Sequential(Lost())))  # type: ignore[type-var]
    seen = lost.explain(PHOTO, measure=False).seen
    assert seen is not None
    assert (seen.picture == 128).all()
    assert seen.verdict.level != "believable"


class Lost(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.nan


def test_two_planted_perceivers_come_to_rest_and_it_is_said() -> None:
    made = planted("vanilla", 1)
    mirrored = replace(made, network=replace(made.network, memory=nn.Sequential(Halfway(1 - HOME))))  # type: ignore[type-var]
    found = talk(made, mirrored, PHOTO)
    assert found.data["period_two"]
    assert found.data["turns"] == 100
    # They meet at (1 + h) / 3 and (2 - h) / 3, which lie (1 - 2 h) / 3 apart.
    apart = float(((1 - 2 * HOME) / 3).square().mean().sqrt())
    assert found.data["apart"] == pytest.approx(apart, abs=1e-5)
    assert found.sentence.startswith("They have come to rest")
    assert len(found.pictures) == 11
    assert talk(made, made, PHOTO).sentence.startswith("They agree")
    short = talk(made, mirrored, PHOTO, 2)
    assert not short.data["period_two"]
    assert "not come to rest" in short.sentence


def test_a_talk_takes_two_perceivers_of_one_size() -> None:
    made = planted("vanilla", 1)
    with pytest.raises(InputError, match="takes two perceivers"):
        talk(made, replace(made, network=None), PHOTO)
    larger = replace(made, network=replace(made.network, shape=Shape(8, "dense", 4, 1, 2)))  # type: ignore[type-var]
    with pytest.raises(InputError, match="see 6 and 8 pixels"):
        talk(made, larger, PHOTO)
    with pytest.raises(InputError, match="at least two turns"):
        talk(made, made, PHOTO, 1)


def test_one_class_is_too_few_and_a_broken_picture_is_left_out(tmp_path: Path, recipe: Perceptual) -> None:
    folders = class_folders(tmp_path / "data", 2)
    (next(p for p in folders.iterdir() if p.is_dir()) / "broken.png").write_bytes(b"no picture")
    quick = replace(recipe, memory_steps=2, judge_epochs=1)
    made = quick.fit(tiny_cnn(), load_samples(folders))
    assert [Path(f["image"]).name for f in made.measures["failures"]] == ["broken.png"]
    for other in [p for p in folders.iterdir() if p.is_dir()][1:]:
        for path in other.iterdir():
            path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="At least two classes must have readable pictures, got 1"):
        quick.fit(tiny_cnn(), load_samples(folders))


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(InputError, match="must be 'vanilla', 'stochastic' or 'none', got 'crystal'"):
        Perceptual("crystal")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must be a whole number of at least 1"):
        Perceptual(n_copies=0)


def test_held_out_pictures_teach_nothing(recipe: Perceptual, tmp_path: Path) -> None:
    """Other pictures to measure on: memory, classifier and what it knows stay as they are."""
    samples = load_samples(class_folders(tmp_path / "own", 2))
    quick = replace(recipe, memory_steps=3, judge_epochs=2, n_loops=2)
    made = [
        quick.fit(tiny_cnn(), samples, validation=load_samples(class_folders(tmp_path / str(side), 2, side=side)))
        for side in (44, 48)
    ]
    first, second = (m.network.tensors() for m in made if m.network is not None)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert len(first["known"]) == 6
    assert made[0].held_out is not None
    assert made[1].held_out is not None
    assert not torch.equal(made[0].held_out.pooled, made[1].held_out.pooled)
