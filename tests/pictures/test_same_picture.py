"""One picture, saved anew, cut, turned or mirrored, is told from two that are merely alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seewhy.pictures import miniatures as same_picture
from seewhy.pictures.miniatures import (
    WIDTH,
    Likeness,
    agreement,
    grey_of,
    miniature,
    opened,
    same_pictures,
    stacked,
    turn_free,
)


def photograph(seed: int) -> Image.Image:
    """Smooth colours with edges of all sizes."""
    draw = np.random.default_rng(seed)
    made = np.zeros((240, 240, 3))
    for side in (4, 10, 24, 48):
        small = Image.fromarray(draw.integers(0, 256, (side, side, 3)).astype(np.uint8))
        made += np.asarray(small.resize((240, 240), Image.Resampling.BICUBIC), float)
    return Image.fromarray((made / 4).astype(np.uint8))


def shirt(seed: int, colour: tuple[float, float, float] = (1.0, 0.8, 0.6)) -> Image.Image:
    """One and the same shape on white, with a pattern and a colour of its own."""
    draw = np.random.default_rng(seed)
    picture = np.full((240, 240, 3), 250, np.uint8)
    pattern = np.kron(draw.integers(60, 160, (24, 16)), np.ones((7, 7)))
    picture[36:204, 64:176] = (pattern[..., None] * colour).astype(np.uint8)
    return Image.fromarray(picture)


def small(picture: Image.Image) -> Tensor:
    """As an encoder is shown it: scaled to 256 by its short side, and the middle 224 of it."""
    scale = 256 / min(picture.size)
    large = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (large.width - 224) // 2, (large.height - 224) // 2
    return miniature(np.asarray(large.crop((left, top, left + 224, top + 224))), picture.size)


def agree(a: Image.Image, b: Image.Image) -> float:
    there, back = (float(agreement(small(x)[None], small(y)[None])) for x, y in ((a, b), (b, a)))
    assert (there > 0) == (back > 0), "it does not matter which was changed"
    return there


def saved(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "jpeg", quality=quality)
    return Image.open(file)


def cut(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    return picture.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


CHANGES = {
    "saved": lambda p: saved(p, 50),
    "halved": lambda p: p.resize((120, 120)),
    "mirrored": lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cut at a corner": lambda p: cut(p, 0.1, 0, 0, 0.1),
    "cut at the other": lambda p: cut(p, 0, 0.1, 0.1, 0),
    "cut anywhere": lambda p: cut(p, 0.03, 0.01, 0.02, 0.04),
    "cut at one side": lambda p: cut(p, 0, 0, 0, 0.1),
    "cut all around": lambda p: cut(p, 0.1, 0.1, 0.1, 0.1),
    "tilted": lambda p: p.rotate(3, Image.Resampling.BICUBIC),
    "tilted and cut": lambda p: cut(p.rotate(-3, Image.Resampling.BICUBIC), 0.05, 0.05, 0.05, 0.05),
    "turned": lambda p: p.transpose(Image.Transpose.ROTATE_90),
    "upside down": lambda p: p.transpose(Image.Transpose.ROTATE_180),
    "turned back": lambda p: p.transpose(Image.Transpose.ROTATE_270),
    "turned and mirrored": lambda p: p.transpose(Image.Transpose.TRANSPOSE),
    "darker": lambda p: p.point(lambda v: round(v * 0.8)),
    "brighter": lambda p: p.point(lambda v: min(255, round(v * 1.3))),
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("make", [photograph, shirt])
def test_a_changed_picture_is_the_same(make, how: str) -> None:
    one = make(0)
    assert agree(one, CHANGES[how](one)) > 0.96
    assert agree(make(1), CHANGES[how](one)) == 0


@pytest.mark.parametrize("side", [26, 60])
def test_what_differs_in_one_place_is_another_picture(side: int) -> None:
    """A print on one shirt, none on the other: a hundredth of the picture, which the whole hardly shows."""
    one = np.asarray(photograph(0)).copy()
    other = one.copy()
    other[100 : 100 + side, 100 : 100 + side] = np.asarray(photograph(1))[100 : 100 + side, 100 : 100 + side]
    assert agree(Image.fromarray(one), Image.fromarray(other)) == 0
    assert agree(Image.fromarray(one), Image.fromarray(one)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("colour", [(1.0, 0.5, 0.4), (0.7, 0.9, 0.6)])
def test_one_shape_in_two_colours_is_two_pictures(colour: tuple[float, float, float]) -> None:
    assert agree(shirt(0), shirt(0, colour)) == 0


def test_light_and_shade_are_no_detail_and_a_plain_picture_is_like_none() -> None:
    slope = np.linspace(30, 200, 240)[None, :, None].repeat(3, 2)
    grain = [np.kron(np.random.default_rng(i).integers(0, 25, (40, 40, 1)), np.ones((6, 6, 1))) for i in (0, 1)]
    one, other = (Image.fromarray((slope + g).astype(np.uint8)) for g in grain)
    assert agree(one, other) == 0
    plain = Image.new("RGB", (240, 240), (90, 90, 90))
    assert agree(plain, plain) == 0


def test_a_view_from_elsewhere_is_another_picture() -> None:
    """Narrower, farther tilted or nearer than anybody cuts or turns a picture by mistake."""

    def matrix(degrees: float, wide: float, high: float) -> list[list[float]]:
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return [[cos * wide, -sin * high], [sin * wide, cos * high]]

    kept = [matrix(*m) for m in ((0, 1, 1), (5, 1, 1), (-5, 0.8, 0.8), (0, 1.25, 1.25), (3, 1.11, 1), (0, 0.9, 1))]
    other = [matrix(*m) for m in ((8, 1, 1), (-8, 1, 1), (0, 0.7, 0.7), (0, 1.4, 1.4), (0, 1.2, 1), (45, 1, 1))]
    assert same_picture._plausible(torch.tensor(kept + other, dtype=torch.float32)).tolist() == [True] * 6 + [False] * 6


def test_tiny_pictures_are_held_to_what_they_show() -> None:
    one, other = (photograph(i).resize((32, 32)) for i in (0, 1))
    assert agree(one, one.resize((16, 16))) > 0
    assert agree(one, other) == agree(one.resize((16, 16)), other) == 0


def test_pairs_are_found_among_many_as_each_by_itself() -> None:
    rows = stacked([small(photograph(i)) for i in range(7)])
    again = stacked([small(CHANGES["turned"](photograph(i))) for i in (5, 2)])
    first, second, value = same_pictures(Likeness(torch.cat([rows, again])))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(2, 8), (5, 7)]
    assert value.tolist() == pytest.approx(
        [float(agreement(rows[i : i + 1], again[j : j + 1])) for i, j in ((2, 1), (5, 0))], abs=1e-4
    )
    first, second, _ = same_pictures(Likeness(again), Likeness(rows))
    assert (first.tolist(), second.tolist()) == ([0, 1], [5, 2])
    none = Likeness(stacked([]))
    assert [x.tolist() for x in same_pictures(none)] == [[], [], []]
    assert [x.tolist() for x in same_pictures(none, Likeness(rows))] == [[], [], []]
    assert [x.tolist() for x in same_pictures(Likeness(rows), none)] == [[], [], []]


def test_features_find_what_is_cut_and_their_absence_costs_no_turn() -> None:
    """Of pictures alike in their coarse cells only features say which is which."""
    rows = stacked([small(photograph(i)) for i in range(9)] + [small(CHANGES["cut all around"](photograph(4)))])
    features = torch.eye(9, 9)[[*range(9), 4]]
    first, second, _ = same_pictures(Likeness(rows, features))
    assert (first.tolist(), second.tolist()) == ([4], [9])


def test_a_miniature_keeps_grey_and_colour_and_turns_leave_its_numbers() -> None:
    pixels = np.asarray(photograph(0).resize((224, 224)))
    row = miniature(pixels, (640, 100))
    assert row.shape == (WIDTH,)
    colours, side = opened(row[None])
    assert side.tolist() == [100]
    assert opened(miniature(pixels, (640, 480))[None])[1].tolist() == [255]
    exact = torch.from_numpy(np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BOX)).copy())
    assert float((grey_of(colours) - grey_of(exact.permute(2, 0, 1)[None].float())).abs().mean()) < 2
    assert float((colours[0].permute(1, 2, 0) - exact).abs().mean((0, 1)).max()) < 16, "colour is kept by half"
    ways = [np.rot90(pixels, k).copy() for k in range(4)] + [pixels[:, ::-1].copy()]
    numbers = turn_free(stacked([miniature(p, (224, 224)) for p in ways]))
    assert torch.allclose(numbers, numbers[:1].expand(5, -1), atol=0.01)
    assert float((numbers[0] - turn_free(miniature(np.asarray(photograph(1)), (9, 9))[None])[0]).norm()) > 0.1


def test_shifts_nearby_are_those_of_the_whole_transform() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = (torch.fft.rfft2(torch.randn(2, 3, 32, 32, generator=draw)) for _ in range(2))
    spectrum = (first.conj() * second)[:, None]
    whole = torch.fft.irfft2(spectrum, s=(32, 32))
    reach = same_picture.REACH
    expected = torch.roll(whole, (reach, reach), (3, 4))[..., : 2 * reach + 1, : 2 * reach + 1]
    torch.testing.assert_close(same_picture._near(spectrum, 32), expected, atol=1e-3, rtol=1e-5)


def test_a_picture_beside_several_is_compared_as_beside_one() -> None:
    """The first of a pair is scaled once for all pairs that follow each other."""
    rows = torch.stack([small(photograph(i)) for i in (0, 1, 2)])
    first, second = torch.tensor([0, 0, 1, 1, 0]), torch.tensor([0, 1, 1, 2, 0])
    together = agreement(rows[first], rows[second])
    alone = torch.cat([agreement(rows[i : i + 1], rows[j : j + 1]) for i, j in zip(first, second, strict=True)])
    torch.testing.assert_close(together, alone)
    assert together[[0, 2, 4]].min() > 0.99
    assert together[[1, 3]].max() == 0


def test_pictures_are_compared_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several wait for each other: seven times as long on a busy machine."""
    counts: list[int] = []
    real = same_picture.agreement
    monkeypatch.setattr(same_picture, "agreement", lambda *x: (counts.append(torch.get_num_threads()), real(*x))[1])
    torch.set_num_threads(2)
    rows = torch.stack([small(photograph(i)) for i in (0, 0, 1)])
    same_pictures(Likeness(rows))
    assert counts == [1]
    assert torch.get_num_threads() == 2
