"""Prototypes that read one property of a picture must be explained by that property and by no other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.encoders.base import Encoder, EncoderOutput, GlobalAverage, Layout
from seewhy.errors import InputError
from seewhy.pictures.images import read_picture
from seewhy.prototypes import reasons
from seewhy.prototypes.characteristics import Characteristics, GlobalInfluences, Influences, changed
from seewhy.prototypes.perturbations import PROPERTIES, EqualChanges, PaperChanges, warp
from tiny import SIDE, TRANSFORM, build, colour_reader, noise, picture, tiny_cnn

BOTH = [Characteristics(PaperChanges()), Characteristics(EqualChanges())]
Reader = Callable[[Tensor], Tensor]


def reading(read: Reader) -> Callable[[EncoderOutput], Tensor]:
    """One prototype, whose similarity is a function of the mean colour (0…1) of each cell."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (TRANSFORM.mean, TRANSFORM.std))
    return lambda look: read(look.features * std + mean)[:, None]


def hue_of(colour: Tensor) -> Tensor:
    """Nearness to red on the colour circle: no grey added and no factor changes it."""
    r, g, b = colour.unbind(1)
    return torch.atan2(3**0.5 * (g - b), 2 * r - g - b).cos()


def flat(*colour: int) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (SIDE, SIDE, 3)).copy()


def one(reason: Characteristics, read: Reader, pixels: np.ndarray) -> dict[str, float]:
    (found,) = reason.local(colour_reader(), reading(read), [pixels])
    return dict(zip(PROPERTIES, found.phi[0].tolist(), strict=True))


@pytest.mark.parametrize("reason", BOTH, ids=lambda r: r.changes.name)
def test_a_prototype_of_a_hue_rests_on_hue(reason: Characteristics) -> None:
    phi = one(reason, hue_of, flat(220, 40, 40))
    assert phi["hue"] > (0.1 if not reason.changes.commensurable else 0.001)
    assert all(abs(v) < 3e-3 and v < phi["hue"] / 2 for k, v in phi.items() if k != "hue")


@pytest.mark.parametrize("reason", BOTH, ids=lambda r: r.changes.name)
def test_a_prototype_of_brightness_rests_on_brightness(reason: Characteristics) -> None:
    phi = one(reason, lambda colour: colour.mean(1), flat(150, 150, 150))
    assert phi["brightness"] > 0.02
    assert all(abs(v) < 1e-6 for k, v in phi.items() if k != "brightness")


@pytest.mark.parametrize("reason", BOTH, ids=lambda r: r.changes.name)
def test_a_prototype_of_saturation_rests_on_saturation_most(reason: Characteristics) -> None:
    """Contrast goes to grey too, so of a flat colour it takes the saturation as well: properties are not orthogonal."""
    phi = one(reason, lambda colour: colour.amax(1) - colour.amin(1), flat(200, 100, 100))
    assert phi["saturation"] > 0.02
    assert phi["contrast"] > 0
    assert all(abs(phi[k]) < 0.02 for k in ("texture", "shape"))
    assert abs(phi["hue"]) < phi["saturation"] / 2


class Roughness(nn.Module):
    """Standard deviation of the brightness in each 8 by 8 cell."""

    def forward(self, x: Tensor) -> Tensor:
        grey = x.mean(1, keepdim=True)
        mean = nn.functional.avg_pool2d(grey, 8)
        return (nn.functional.avg_pool2d(grey**2, 8) - mean**2).clamp(min=0).sqrt()


def test_a_prototype_of_roughness_rests_on_texture_when_changes_are_equal() -> None:
    """The warp only exchanges pixels that are all alike noisy; with the paper's strengths contrast would come first."""
    rng = np.random.default_rng(0)
    rough = (120 + rng.normal(0, 16, (SIDE, SIDE, 1))).clip(0, 255).astype(np.uint8).repeat(3, 2)
    encoder = build(Roughness(), GlobalAverage(), Layout(), 1)
    (found,) = Characteristics().local(encoder, lambda look: look.features, [rough])
    phi = dict(zip(PROPERTIES, found.phi[0].tolist(), strict=True))
    assert phi["texture"] > 0.1
    assert phi["texture"] > 2 * max(abs(phi[k]) for k in ("hue", "saturation", "brightness", "shape"))


def everything(look: EncoderOutput) -> Tensor:
    """Eight prototypes: the channels of the tiny network."""
    return look.features


PICTURES = [picture(label, seed) for seed in range(2) for label in ("moss", "rust", "sky")]


@pytest.mark.parametrize("reason", BOTH, ids=lambda r: r.changes.name)
def test_one_by_one_is_as_in_a_batch(reason: Characteristics) -> None:
    encoder = tiny_cnn()
    together = list(reason.local(encoder, everything, PICTURES, batch_size=32))
    alone = [next(reason.local(encoder, everything, [p], batch_size=1)) for p in PICTURES]
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a.cells, b.cells)
        assert torch.allclose(a.phi, b.phi, atol=1e-6)
        assert torch.equal(a.change, b.change)


def test_the_cell_is_that_of_the_picture_and_not_of_the_copy() -> None:
    encoder, reason = tiny_cnn(), Characteristics(PaperChanges())
    (fixed,) = reason.local(encoder, everything, PICTURES[:1])
    (free,) = reason.local(encoder, everything, PICTURES[:1], follow=True)
    views = changed(encoder.transform, PICTURES[0], PaperChanges()).views
    maps = encoder.encode(encoder.pixels(views)).features
    best = maps[0].flatten(1).argmax(1)
    assert torch.equal(fixed.cells, torch.stack([best // 8, best % 8], 1))
    by_hand = maps[0].flatten(1).amax(1)[:, None] - maps[1:].flatten(2)[:, torch.arange(8), best].T
    assert torch.allclose(fixed.phi, by_hand, atol=1e-6)
    assert torch.allclose(free.changed, maps[1:].amax((2, 3)).T, atol=1e-6)
    assert (free.phi <= fixed.phi + 1e-6).all()


def test_cells_may_be_given() -> None:
    encoder, cells = tiny_cnn(), torch.tensor([[i, 7 - i] for i in range(8)])
    (found,) = Characteristics().local(encoder, everything, PICTURES[:1], cells=cells)
    view = read_picture(PICTURES[0], encoder.transform).pixels
    grid = encoder.encode(encoder.pixels([view])).features[0]
    assert torch.equal(found.cells, cells)
    assert torch.allclose(found.similarity, grid[torch.arange(8), cells[:, 0], cells[:, 1]], atol=1e-6)
    with pytest.raises(InputError) as error:
        list(Characteristics().local(encoder, everything, PICTURES[:1], cells=cells + 1))
    assert str(error.value) == "`cells` must be (row, column) within 8 × 8, counted from 0."


def test_outside_of_the_box_nothing_is_changed() -> None:
    quarter = changed(TRANSFORM, PICTURES[0], PaperChanges(), (0.0, 0.0, 0.5, 0.5))
    whole = changed(TRANSFORM, PICTURES[0], PaperChanges())
    half = SIDE // 2
    for inside, everywhere in zip(quarter.views[1:], whole.views[1:], strict=True):
        assert np.array_equal(inside[:half, :half], everywhere[:half, :half])
        assert np.array_equal(inside[half:], whole.views[0][half:])
        assert np.array_equal(inside[:, half:], whole.views[0][:, half:])
    assert (quarter.change < whole.change).all()


def test_the_paper_s_changes_are_made_before_resizing() -> None:
    large = np.asarray(Image.fromarray(PICTURES[0]).resize((120, 120)))
    views = changed(TRANSFORM, large, PaperChanges()).views
    assert np.array_equal(views[0], read_picture(large, TRANSFORM).pixels)
    shape = PROPERTIES.index("shape") + 1
    assert np.array_equal(views[shape], read_picture(warp(large, 4, 0.05), TRANSFORM).pixels)
    view = read_picture(large, TRANSFORM)
    assert np.array_equal(changed(TRANSFORM, view, PaperChanges()).views[shape], warp(view.pixels, 4, 0.05))


def test_a_large_picture_is_reduced_to_the_size_the_strengths_are_for() -> None:
    large = np.asarray(Image.fromarray(PICTURES[0]).resize((160, 120)))
    whole = changed(TRANSFORM, large, PaperChanges(longest=None))
    reduced = changed(TRANSFORM, large, PaperChanges(longest=40))
    shape = PROPERTIES.index("shape")
    assert reduced.change[shape] > 1.5 * whole.change[shape]


def test_the_global_mean_is_weighted_by_similarity() -> None:
    encoder, reason = tiny_cnn(), Characteristics()
    found = reason.overall(encoder, everything, PICTURES, batch_size=7)
    local = list(reason.local(encoder, everything, PICTURES))
    weight = torch.stack([one.similarity.clamp(min=0) for one in local])
    phi = torch.stack([one.phi for one in local])
    assert torch.allclose(found.phi, (weight[..., None] * phi).sum(0) / weight.sum(0)[:, None], atol=1e-6)
    assert torch.allclose(found.similarity, weight.mean(0), atol=1e-6)
    assert ((found.positive >= 0) & (found.positive <= 1)).all()
    assert (found.n_pictures, found.strengths) == (len(PICTURES), "calibrated")


def test_no_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="`pictures` must contain at least one picture"):
        Characteristics().overall(tiny_cnn(), everything, [])


def test_a_prototype_like_no_picture_has_no_influences() -> None:
    one = Influences(torch.tensor([-0.5]), torch.zeros(1, 6), torch.zeros(1, 2, dtype=torch.long), torch.ones(6))
    assert (GlobalInfluences.of([one], "paper").phi == 0).all()


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError) as error:
        list(Characteristics().local(tiny_cnn(), lambda look: look.features.log(), PICTURES[:1]))
    expected = "The similarities to prototypes are not finite on these pictures. Try --engine torch."
    assert str(error.value) == expected


def test_the_model_is_left_as_it_was_and_repeats_itself() -> None:
    encoder: Encoder = tiny_cnn()
    before = encoder.encode(noise(2)).features.clone()
    first, second = (next(Characteristics().local(encoder, everything, PICTURES[:1])).phi for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(encoder.encode(noise(2)).features, before)


def test_class_attributes_and_file_name() -> None:
    for name in reasons:
        cls = reasons[name]
        assert cls.name == name == cls.__module__.rpartition(".")[2]
        assert all(isinstance(getattr(cls, a), str) and getattr(cls, a) for a in ("paper", "needs", "cost"))
        assert cls.__doc__
