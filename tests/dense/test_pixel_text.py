"""The map of scores, its loss and its parts beside the authors', in other sizes than those of the other tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_dense_cells import bare, fill
from test_refine import wave
from torch import nn

from seewhy.dense.cells import attended_cells
from seewhy.dense.denseclip import DenseCLIP
from seewhy.dense.mask_training import pixel_loss
from seewhy.dense.pixel_text import ContextDecoder, TextDecoder
from seewhy.encoders.base import Layout
from seewhy.encoders.open_clip import TextHalf
from seewhy.encoders.text_tokens import ClipText, Sentence
from seewhy.learning.adaptation.prompts import Names
from tiny import build

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "denseclip.json").read_text("utf-8"))
NEAR = {"atol": 2e-5, "rtol": 1e-4}


def fill_all(net: nn.Module) -> None:
    """Numbers of the golden ones that are no two alike, so that what is read of them shows."""
    for i, (name, p) in enumerate(sorted(net.named_parameters())):
        n = torch.arange(p.numel(), dtype=torch.float64) ** 1.3
        norm = "norm" in name and name.endswith("weight")
        with torch.no_grad():
            p.copy_((0.8 * torch.sin((1.1 + 0.01 * i) * n + i)).float().reshape(p.shape) + norm)


def test_a_deeper_context_decoder_is_the_authors() -> None:
    made = ContextDecoder(10, 24, 3, 3, 0.0)
    fill_all(made)
    found = made(wave(1, 5, 10, k=0.3, i=2), wave(1, 4, 10, k=0.9))
    torch.testing.assert_close(found.flatten(), torch.tensor(GOLDEN["deep"]["out"]), **NEAR)


def test_cells_that_attend_on_a_tall_map_are_the_authors() -> None:
    open_clip = pytest.importorskip("open_clip")
    pool = open_clip.modified_resnet.AttentionPool2d(4, 24, 3, 8)
    fill(pool)
    cells, whole = attended_cells(build(nn.Identity(), pool, Layout(), 24, text=bare(8)), wave(1, 24, 5, 3, k=0.4, i=2))
    assert cells.shape == (1, 8, 5, 3)
    torch.testing.assert_close(whole.flatten(), torch.tensor(GOLDEN["pool_tall"]["whole"]), **NEAR)
    torch.testing.assert_close(cells.flatten(), torch.tensor(GOLDEN["pool_tall"]["cells"]), **NEAR)


def test_names_behind_more_contexts_are_the_authors() -> None:
    open_clip = pytest.importorskip("open_clip")
    text = {"context_length": 9, "vocab_size": 40, "width": 12, "heads": 3, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    model = open_clip.CLIP(10, vision, text, quick_gelu=True).eval().requires_grad_(False)
    named = sorted((n, p) for n, p in model.named_parameters() if not n.startswith(("visual.", "logit_scale")))
    for i, (name, p) in enumerate(named):
        p.copy_(0.4 * wave(*p.shape, k=1.1 + 0.01 * i, i=i) + ("ln_" in name and name.endswith("weight")))
    ids = {f"{i}.": row for i, row in enumerate(GOLDEN["text_short"]["ids"])}
    half = TextHalf(model, Sentence(9, end=39))
    tower = ClipText("golden", 1.0, half, lambda texts: (torch.tensor([ids[one] for one in texts]),))
    read = Names(tower, ["0", "1"]).read(0.5 * wave(1, 4, 12, k=0.3, i=2))
    expected = torch.tensor(GOLDEN["text_short"]["out"]).unflatten(0, (1, 2, 10))
    torch.testing.assert_close(read, nn.functional.normalize(expected, dim=2), **NEAR)


@pytest.fixture
def cosine() -> torch.Tensor:
    """The map of the golden numbers."""
    network = TextDecoder([2], 8, wave(1, 3, 12, k=0.6, i=1)[0], "post", 0.0)
    network.context = ContextDecoder(12, 16, 2, 2, 0.0)
    fill_all(network.context)
    with torch.no_grad():
        network.gamma.copy_(0.3 * wave(12, k=0.8))
    return network.eval().cosines(wave(2, 12, 2, 4, k=0.7, i=2), wave(2, 12, k=0.5, i=3)).detach()


def test_the_map_of_scores_is_the_authors_and_stands_behind_the_features(cosine: torch.Tensor) -> None:
    golden = GOLDEN["score_map"]
    read = torch.cat([wave(2, 2, 2, 4, k=0.2), cosine], 1)
    torch.testing.assert_close(read.flatten(), torch.tensor(golden["read"]), **NEAR)
    given = cosine / DenseCLIP().tau
    torch.testing.assert_close(given.flatten(), torch.tensor(golden["given"]), atol=2e-4, rtol=1e-4)


def test_its_loss_is_the_authors_but_for_pixels_without_a_class(cosine: torch.Tensor) -> None:
    golden, how = GOLDEN["score_map"], DenseCLIP()
    labels = (7 * torch.arange(2 * 8 * 16) % 3).view(2, 8, 16)
    own = how.auxiliary * pixel_loss(cosine / how.tau, labels)
    assert float(own) == pytest.approx(golden["loss"], abs=2e-5)
    labels[:, :3] = 255  # theirs has the mean over these too, as zeros
    own = how.auxiliary * pixel_loss(cosine / how.tau, labels)
    assert float(own) * 5 / 8 == pytest.approx(golden["loss_ignored"], abs=2e-5)
