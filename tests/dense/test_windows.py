"""Windows, masks as runs, and pixels between cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from seewhy.dense.reader import LONGEST, Windows, best_classes, bilinear, tiling
from seewhy.errors import DataError
from seewhy.pictures.pixel_classes import decode, encode, runs


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 40))
def test_between_cells_as_torch_does(n: int, m: int) -> None:
    values = torch.sin(torch.arange(float(n)) * 1.7)
    expected = interpolate(values[None, None, None], size=(1, m), mode="bilinear", align_corners=False)[0, 0, 0]
    torch.testing.assert_close(bilinear(n, m) @ values, expected, atol=1e-5, rtol=0)


def test_the_best_class_of_every_pixel_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.dense.reader.STRIP", 10)
    scores = torch.sin(torch.arange(3 * 4 * 5) * 1.3).reshape(3, 4, 5)
    between = interpolate(scores[None], size=(37, 23), mode="bilinear", align_corners=False)[0]
    best, likely = best_classes(scores, (37, 23), 7.0)
    assert torch.equal(best.long(), between.argmax(0))
    torch.testing.assert_close(likely, (7 * between).softmax(0).amax(0))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 2000), st.floats(1, LONGEST), st.booleans(), st.integers(1, 3))
def test_windows_cover_a_picture_and_are_hardly_stretched(side: int, ratio: float, high: bool, along: int) -> None:
    """Of no picture that is longer than those which are cut; with up to 3 windows along they are never too many."""
    width, height = (side, int(ratio * side)) if high else (int(ratio * side), side)
    found = Windows((14, 10), tiling((width, height), along))
    short, long = (found.n[0], found.n[1]) if width >= height else (found.n[1], found.n[0])
    assert short == along <= long
    crops = found.crops()
    assert crops[0].box[:2] == (0, 0)
    assert crops[-1].box[2:] == (1, 1)
    one = crops[0].box
    sides = (one[2] * width * 14 / 10 / (one[3] * height) * 10 / 14, one[3] * height / (one[2] * width))
    assert max(sides) < 1.5 * 1.2 or long == along
    assert torch.equal(found.merged(torch.ones(len(crops), 2, 14, 10)), torch.ones(2, *found.whole))


def test_windows_are_put_together_where_they_lie() -> None:
    found = Windows((4, 4), (1, 2))
    assert (found.strides, found.whole, found.corners()) == ((3, 3), (4, 7), [(0, 0), (0, 3)])
    assert found.crops()[1].box == (3 / 7, 0.0, 1.0, 1.0)
    first, second = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    assert found.merged(torch.stack([first, second]))[0, 0].tolist() == [0, 0, 0, 0.5, 1, 1, 1]


def test_finer_maps_are_put_together_where_their_windows_lie() -> None:
    found = Windows((4, 4), (1, 2))
    across = torch.arange(14.0).expand(8, 14)
    parts = torch.stack([across[None, :, :8], across[None, :, 6:]])
    assert torch.equal(found.merged(parts), across[None])


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_runs_go_both_ways(density: float) -> None:
    mask = np.random.default_rng(3).random((61, 97)) < density
    coded = encode(mask)
    assert coded["size"] == [61, 97]
    assert np.array_equal(decode(coded), mask)
    assert np.array_equal(decode({"size": [61, 97], "counts": runs(mask).tolist()}), mask)


def test_runs_are_written_as_pycocotools_writes_them() -> None:
    """``pycocotools.mask.encode`` 2.0 of these."""
    mask = np.zeros((20, 30), bool)
    mask[3:17, 4:25] = True
    mask[8:10, 9:12] = False
    mask[19, 29] = True
    assert encode(mask)["counts"] == PYCOCO


PYCOCO = "c2>600000000GL24NL24NL247000000000000000000000000P3C"


@pytest.mark.parametrize(
    "coded",
    [{"size": [2, 2], "counts": [1, 4]}, {"size": [2, 2], "counts": "1"}, {"size": [2, 2], "counts": "1o"},
     {"size": [2, 2], "counts": "\x00"}, {"size": [2], "counts": [4]}, {"counts": [4]}, None,
     {"size": [2, 2], "counts": [-1, 5]}, {"size": [0, 0], "counts": []}],
)  # fmt: skip
def test_what_is_no_mask_is_told(coded: object) -> None:
    with pytest.raises(DataError, match=r"^(seg 3 must be a COCO run-length mask|The runs of seg 3 must add up to)"):
        decode(coded, "seg 3")
