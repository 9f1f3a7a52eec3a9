"""Planted evidence: a model that reads one thing must be explained by that thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.attributions import attributions
from seewhy.attributions.shares import cell_evidence, shares, strongest_cells
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.unfitted import Described, Pretrained
from seewhy.descriptions import Descriptions
from seewhy.encoders.base import Layout
from seewhy.explanation.base import Where, Words
from seewhy.explanation.similar import Like
from seewhy.heads.head import Target
from seewhy.pictures.samples import load_samples
from tiny import SIDE, HashedWords, Mixing, Tokens, build, colour_reader

GREY = 128


def with_patch(row: int, column: int, colour: tuple[int, int, int], size: int = 8) -> np.ndarray:
    """Grey, with one square of a colour."""
    pixels = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    pixels[row : row + size, column : column + size] = colour
    return pixels


# Positive share in the patch, where a method cannot have all of it: it assumes that no activation is negative, as
# behind a ReLU, and here some are; or it never counts against, so that the grey round the patch adds up; or is smooth.
LEAST = {
    "ablation_cam": 0.45,
    "full_grad": 0.9,
    "grad_cam_elementwise": 0.95,
    "grad_cam_plus_plus": 0.9,
    "guided_grad_cam": 0.7,
    "layer_cam": 0.9,
    "occlusion": 0.7,
    "rise": 0.06,
    "score_cam": 0.4,
}
# Their map of the other class is the same: they see no class, or no sign, and of these two one is minus the other.
BLIND = {"eigen_cam", "full_grad", "kpca_cam"}
# The gradient of a linear model is the same whatever the picture.
NOT_HERE = {"smooth_grad"}


READY = [
    n
    for n, cls in ((n, attributions[n]) for n in attributions)
    if not (cls.needs_training or cls.needs_attention or cls.needs_words or cls.recipe) and n not in NOT_HERE
]


def in_cells(heat: np.ndarray) -> np.ndarray:
    """A map of 8 by 8 cells, whatever its own resolution."""
    return torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(heat)[None], 8)[0].numpy()


@pytest.mark.parametrize("name", READY)
@pytest.mark.parametrize(("row", "column"), [(0, 0), (8, 20), (24, 4), (24, 24)])
def test_a_model_that_reads_one_patch_is_explained_by_that_patch(name: str, row: int, column: int) -> None:
    model = Pretrained().build(colour_reader())
    why = model.explain(with_patch(row, column, (255, GREY, 0)), where=name)
    assert why.prediction.label == "moss"
    assert isinstance(why.where, Where)
    hot = np.zeros((8, 8), bool)
    hot[row // 4 : row // 4 + 2, column // 4 : column // 4 + 2] = True
    heat = in_cells(why.where.heat)
    assert hot[np.unravel_index(heat.argmax(), (8, 8))]
    positive = heat.clip(min=0)
    assert positive[hot].sum() / positive.sum() > LEAST.get(name, 0.99)
    left, top, right, bottom = why.where.regions[0].query_box
    assert left <= column + 4 <= right
    assert top <= row + 4 <= bottom
    if name in BLIND:
        assert (why.where.verdict.level, why.where.match_lead) == ("partly", pytest.approx(0, abs=1e-3))
    else:
        # RISE's maps on so small a picture lie nine parts in ten outside the patch.
        assert why.where.verdict.level in ("believable", "partly" if name == "rise" else "believable")
    assert why.where.deletion < why.where.deletion_random
    assert why.where.insertion > why.where.insertion_random


def test_a_patch_for_the_other_class_speaks_against() -> None:
    model = Pretrained().build(colour_reader())
    pixels = with_patch(0, 0, (255, GREY, 0))
    pixels[24:, 24:] = (0, GREY, 255)
    heat = model.explain(pixels, target="moss").where.heat
    assert heat[:2, :2].min() > 0 > heat[6:, 6:].max()
    against = model.explain(pixels, target="moss", contrast="rust").where.heat
    np.testing.assert_allclose(against, 2 * heat, atol=1e-6)


def test_a_grey_picture_has_an_empty_map_and_says_so() -> None:
    model = Pretrained().build(colour_reader())
    pixels = with_patch(0, 0, (0, GREY, 255))
    why = model.explain(pixels, target="moss")
    assert why.where.is_zero
    assert why.where.verdict.level == "do not rely"
    assert why.where.verdict.sentence == "No part of this picture is evidence for moss, so the map is empty."


def test_tokens_behind_a_head_that_reads_one_token() -> None:
    class One(Mixing):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens[:, 1 + 6].tanh()

    torch.manual_seed(0)
    model = Pretrained().build(build(Tokens(), One(), Layout("tokens", (4, 4), 1)))
    look = model.encoder.encode(torch.randn(2, 3, SIDE, SIDE))
    target = Target(torch.tensor([0, 1]))
    evidence = cell_evidence(model, look, target)
    assert (evidence[:, 1, 2] != 0).all()
    evidence[:, 1, 2] = 0
    assert not evidence.any()


def test_the_word_that_the_tower_reads_has_the_top_score() -> None:
    red = torch.tensor([1.0, 0.0, -1.0])
    tower = HashedWords(3, {"glowing": red, "icy": -red})
    tower.shift = torch.zeros(3)
    encoder = colour_reader()
    encoder._text = lambda: tower
    words = Descriptions({"ember": ("small", "glowing", "round"), "frost": ("icy", "flat")})
    model = Described(with_names=False).build(encoder, words)
    why = model.explain(with_patch(8, 8, (255, GREY, 0)))
    assert why.prediction.label == "ember"
    assert isinstance(why.words, Words)
    best = max(why.words.words, key=lambda w: w.score)
    assert (best.text, best.label) == ("glowing", "ember")
    assert best.score > 0.95
    assert min(why.words.words, key=lambda w: w.score).text == "icy"


def planted_pictures(root: Path) -> Path:
    """Greenish pictures of two classes; each *ember* carries the same red square, at a place of its own."""
    rng = np.random.default_rng(0)
    for label, colour in (("ember", (255, GREY, 0)), ("frost", (0, GREY, 255))):
        (root / label).mkdir()
        for i, green in enumerate((101, 120, 136, 155)):
            pixels = with_patch(4 * i, 24 - 4 * i, colour).astype(float)
            pixels[..., 1] = green
            pixels += rng.normal(0, 3, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / label / f"{i}.png")
    return root


def test_the_planted_patch_is_found_with_its_box(tmp_path: Path) -> None:
    model = Linear(n_crops=0, held_out=0.25).fit(colour_reader(), load_samples(planted_pictures(tmp_path)))
    why = model.explain(with_patch(20, 4, (255, GREY, 0)))
    assert why.prediction.label == "ember"
    assert isinstance(why.like, Like)
    nearest = [n for n in why.like.neighbours if n.letter == "A"]
    assert len(nearest) == 4
    for near in nearest:
        assert near.label == "ember"
        i = int(Path(near.image).stem)
        left, top, right, bottom = near.box
        assert left < 24 - 4 * i + 8
        assert right > 24 - 4 * i
        assert top < 4 * i + 8
        assert bottom > 4 * i
        assert near.similarity > 0.9
        assert near.patch is not None
        assert near.patch[..., 0].mean() > near.patch[..., 2].mean()
    region = why.where.regions[0]
    assert nearest[0].query_box == region.query_box
    assert nearest[0].share == region.share


def test_shares_and_strongest_cells() -> None:
    evidence = torch.tensor([[[3.0, -5.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 4.0]]])
    share = shares(evidence)[0]
    assert share.sum() == pytest.approx(1)
    assert share[0, 0] == pytest.approx(3 / 8)
    assert share[0, 1] == 0
    assert strongest_cells(share, 3) == [(2, 2), (0, 0)]
    assert strongest_cells(share, 3, apart=1) == [(2, 2), (0, 0), (1, 1)]
    assert strongest_cells(torch.zeros(3, 3), 3) == []
