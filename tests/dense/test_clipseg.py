"""CLIPSeg from a folder: the maps of transformers, one name a pixel, tiles, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_detect import WORDS, save_tokenizer
from torch.nn.functional import interpolate
from typer.testing import CliRunner

from coloured import colours
from schemas import check
from seewhy.cli import app
from seewhy.dense import segmenters
from seewhy.dense.by_words import finder_for
from seewhy.dense.clipseg import CLIPSeg
from seewhy.dense.pretrained import open_network
from seewhy.dense.reader import best_classes
from seewhy.errors import DataError, ImageError, InputError, ModelError, UnknownNameError
from seewhy.types import Failure


def pixels(height: int = 40, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers", reason="the extra 'huggingface' is not installed")
    folder = tmp_path_factory.mktemp("clipseg")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": len(WORDS) - 1}
    config = transformers.CLIPSegConfig(
        text_config=text,
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16, reduce_dim=8, extract_layers=[0, 2], decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )  # fmt: skip
    network = transformers.CLIPSegForImageSegmentation(config).eval()
    for p in network.parameters():  # at first nearly nothing tells names apart
        p.data.mul_(8 if p.ndim > 1 else 1)
    network.save_pretrained(folder)
    images = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    transformers.CLIPSegProcessor(images, save_tokenizer(folder)).save_pretrained(folder)
    return folder


@pytest.mark.slow  # three seconds: transformers is imported and a network is saved
def test_maps_are_those_of_transformers(folder: Path, tmp_path: Path) -> None:
    import transformers

    built = finder_for(segmenters, f"clipseg:{folder}", ["a cat", "dog", "red dog"])
    found = built.segment(pixels())
    model = transformers.CLIPSegForImageSegmentation.from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    said = ["a photo of a cat.", "a photo of a dog.", "a photo of a red dog."]
    given = processor(text=said, images=[Image.fromarray(pixels())] * 3, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**given).logits
    torch.testing.assert_close(torch.from_numpy(found.scores), theirs, atol=1e-5, rtol=1e-4)
    fine = interpolate(theirs[None], size=(40, 80), mode="bilinear", align_corners=False)[0]
    assert (found.mask == fine.argmax(0).numpy()).mean() > 0.999
    assert len(set(found.mask.ravel().tolist())) > 1
    for one in found.regions:
        own = fine[found.classes.index(one.label)].sigmoid().numpy()[found.mask_of(one.label)]
        assert one.score == pytest.approx(float(own.mean()), abs=1e-4)
    check("segmentation", [found.to_json()])
    assert (found.about["n_windows"], found.about["grid"]) == (1, [32, 32])
    # Pixels that no name is sure of get none; smaller tiles show more.
    best = fine.sigmoid().amax(0).numpy()
    least = float(np.median(best))
    some = finder_for(segmenters, f"clipseg:{folder}", found.classes, least=least).segment(pixels())
    assert ((some.mask == 255) == (best < least)).mean() > 0.99
    tiled = finder_for(segmenters, f"clipseg:{folder}", found.classes, zoom=2.0).segment(pixels())
    assert tiled.about["n_windows"] > 2
    assert tiled.scores.shape[1] == 56
    # Of several sentences, the mean.
    two = CLIPSeg(("a photo of a {}.", "{}")).build(["dog", "cat"], str(folder))
    each = [CLIPSeg((one,)).build(["dog", "cat"], str(folder)).texts for one in ("a photo of a {}.", "{}")]
    torch.testing.assert_close(two.texts, (each[0] + each[1]) / 2, atol=1e-6, rtol=1e-5)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff")
    kinds = [type(one) for one in built.segment_all([str(bad), pixels()])]
    assert kinds == [Failure, type(found)]
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        built.segment(bad)
    with pytest.raises(ModelError, match=r"must contain a 'owlv2' network, got 'clipseg'"):
        open_network("owlv2", str(folder))
    Image.fromarray(pixels()).save(tmp_path / "photo.png")
    words = ["segment", str(tmp_path / "photo.png"), "--labels", "cat,dog", "--method", f"clipseg:{folder}"]
    done = CliRunner().invoke(app, [*words, "--json", "--quiet", "-o", str(tmp_path / "seg")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["method"] == "clipseg"
    wrong = CliRunner().invoke(app, [*words, "--set", "denoised=0.5"])
    assert str(wrong.exception).startswith("There is no setting of clipseg called 'denoised'. Known: ")


def test_probabilities_of_their_own_are_sigmoids() -> None:
    scores = torch.tensor([[[2.0, -1.0]], [[0.5, 3.0]]])
    best, own = best_classes(scores, (1, 2), 1.0, alone=True)
    assert best.tolist() == [[0, 1]]
    assert own is not None
    torch.testing.assert_close(own, scores.amax(0).sigmoid())
    _, among = best_classes(scores, (1, 2), 1.0)
    assert among is not None
    torch.testing.assert_close(among, scores.softmax(0).amax(0))


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"name": "clipseg"}, InputError, "clipseg needs a folder of weights written by save_pretrained"),
        ({"name": "clipseg"}, InputError, "--method clipseg:/path/to/folder."),
        ({"name": "clipsag:/x"}, UnknownNameError, "Did you mean 'clipseg'"),
        (
            {"name": "maskclip:/x"},
            InputError,
            "The segmenter maskclip takes no folder of weights, got '/x'",
        ),
        ({"name": "linear"}, InputError, "The segmenter linear must be trained on pictures"),
        ({"name": "maskclip", "tiles": 2}, InputError, "The segmenter maskclip has no parameter 'tiles'."),
        (
            {"name": "clipseg:/x", "labels": ["a"]},
            DataError,
            "Segmentation needs 2 to 255 different names, got 1 name.",
        ),
        ({"name": "clipseg:/x", "zoom": 0.1}, InputError, "`zoom` of clipseg must be a number from"),
        (
            {"name": "clipseg:/x", "templates": ("a",)},
            InputError,
            "`templates` of clipseg must be sentences with {} in place of the name, got ('a',)",
        ),
        ({"name": "clipseg:/x", "templates": ()}, InputError, "place of the name, got ()"),
        ({"name": "clipseg:/x", "least": 1.0}, InputError, "`least` of clipseg must be a number from 0 to below 1"),
    ],
)
def test_what_is_refused(given: dict[str, Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind) as caught:
        finder_for(segmenters, **{"labels": ["a", "b"], "encoder": colours(), **given})
    assert says in str(caught.value)


def test_names_that_stand_on_an_encoder() -> None:
    built = finder_for(segmenters, "maskclip", ["red", "green"], colours(), least=0.2)
    assert (built.classes, built.parameters["least"]) == (("red", "green"), 0.2)  # type: ignore[union-attr]
