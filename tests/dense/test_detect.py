"""Boxes by words: planted things are found, formats are written, and ready detectors are read safely."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from typer.testing import CliRunner

import seewhy
from seewhy.cli import app
from seewhy.dense import Detections, detectors
from seewhy.dense.by_words import finder_for
from seewhy.dense.grounding_dino import words_of_names
from seewhy.dense.reader import box_means
from seewhy.dense.regions import Keep
from seewhy.dense.word_regions import RegionDetector, WordRegions
from seewhy.errors import DataError, ImageError, InputError, ModelError, UnknownNameError, WeightsError
from seewhy.metrics.localisation import pieces
from seewhy.types import Failure
from tiny_words import tiny_pair


def planted(places: dict[int, tuple[int, int, int, int]], n: int = 3) -> tuple[RegionDetector, torch.Tensor]:
    """A map of 8 by 8 cells that says one name in each place, and the rest elsewhere."""
    texts = torch.eye(8)[: n + 1]
    detector = WordRegions(size=1).build([f"thing {i}" for i in range(n)], tiny_pair())
    object.__setattr__(detector.words, "texts", texts)
    object.__setattr__(detector.words, "scale", 10.0)
    cells = texts[n][:, None, None].repeat(1, 8, 8)
    for k, (left, top, right, bottom) in places.items():
        cells[:, top:bottom, left:right] = texts[k][:, None, None]
    return detector, cells


def test_planted_things_are_found_where_they_are() -> None:
    places = {0: (1, 1, 3, 4), 2: (5, 2, 8, 8)}
    detector, cells = planted(places)
    boxes, labels = detector.regions(cells)
    scores = detector.scores(cells, boxes, labels)
    for k, place in places.items():
        own = torch.nonzero(labels == k).flatten()
        best = boxes[own[scores[own].argmax()]]
        assert (best - torch.tensor(place)).abs().max() <= 0.5
        assert scores[own].max() > 0.7
    assert scores[labels == 1].max().item() < 0.05 if (labels == 1).any() else True


def test_a_score_is_the_formula() -> None:
    detector, cells = planted({0: (2, 2, 4, 4)})
    box = torch.tensor([[2.0, 2.0, 4.0, 4.0]])
    inside, ring = (torch.tensor(v) @ torch.eye(4) for v in ([1.0, 0, 0, 0], [0, 0, 0, 1.0]))
    p, q = (float((10 * normalize(v, dim=0)).softmax(0)[0]) for v in (inside, ring))
    assert float(detector.scores(cells, box, torch.tensor([0]))) == pytest.approx(p * (1 + p - q) / 2, abs=1e-6)
    # A box over the whole picture has no ring: nothing is taken off, and nothing added.
    whole = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    words, mean = detector.words, normalize(box_means(cells, whole), dim=1)
    sure = float((words.scale * mean @ words.texts.T).softmax(1)[0, 3])
    assert float(detector.scores(cells, whole, torch.tensor([3]))) == pytest.approx(sure / 2, abs=1e-6)


def test_a_mean_over_a_box_is_the_integral() -> None:
    torch.manual_seed(0)
    grid = torch.randn(3, 5, 7)
    fine = grid.repeat_interleave(20, 1).repeat_interleave(20, 2)
    boxes = torch.tensor([[0.0, 0.0, 7.0, 5.0], [1.25, 0.5, 1.45, 4.95], [6.9, 4.0, 7.0, 5.0], [2.0, 1.0, 3.0, 2.0]])
    brute = [
        fine[:, round(t * 20) : round(b * 20), round(x * 20) : round(r * 20)].mean((1, 2))
        for x, t, r, b in boxes.tolist()
    ]
    assert torch.allclose(box_means(grid, boxes), torch.stack(brute), atol=1e-5)


def test_pieces_are_those_that_touch() -> None:
    masks = torch.zeros(2, 6, 6, dtype=torch.bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 4:, 3:] = masks[1, 2, 2:5] = True
    which, boxes, _ = pieces(masks)
    assert which.tolist() == [0, 0, 1]
    assert boxes.tolist() == [[0, 0, 2, 2], [3, 4, 6, 6], [2, 2, 5, 3]]


def test_what_is_kept() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [-5, 50, 500, 500], [200, 0, 300, 10.0]])
    scores, labels = torch.tensor([0.5, 0.9, 0.4, 0.3, 1.0]), torch.tensor([0, 0, 1, 0, 0])
    found = Keep().detections(boxes, scores, labels, ("a", "b"), (100, 60))
    assert [(d.label, d.box) for d in found] == [("a", (1, 0, 11, 10)), ("b", (1, 0, 11, 10)), ("a", (0, 50, 100, 60))]
    assert [round(d.score, 2) for d in found] == [0.9, 0.4, 0.3]
    assert len(Keep(least=0.35).detections(boxes, scores, labels, ("a", "b"), (100, 60))) == 2
    assert len(Keep(most=1).detections(boxes, scores, labels, ("a", "b"), (100, 60))) == 1
    assert len(Keep(overlap=0.9).detections(boxes, scores, labels, ("a", "b"), (100, 60))) == 4


def test_python(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    found = seewhy.detect(pixels, ["a red square", "grass"], tiny_pair(), most=3)
    assert isinstance(found, Detections)
    assert found.size == (90, 60)
    assert len(found) <= 3
    assert all(0 <= d.box[0] < d.box[2] <= 90 and 0 <= d.box[1] < d.box[3] <= 60 for d in found.regions)
    assert json.loads(found.save(tmp_path / "d.json").read_text())["classes"] == ["a red square", "grass"]
    assert "a red square" in found.save(tmp_path / "d.html").read_text()
    with pytest.raises(DataError, match=r"Detections must be written as \.html, \.json, got .*\.png"):
        found.save(tmp_path / "d.png")
    both = seewhy.detect([pixels, tmp_path / "none.jpg"], ["grass"], tiny_pair())
    assert isinstance(both[1], Failure)
    with pytest.raises(ImageError):
        seewhy.detect(tmp_path / "none.jpg", ["grass"], tiny_pair())


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (
            {"labels": " , "},
            DataError,
            "Detection needs at least one name, and all names must be different, got 0 names.",
        ),
        ({"labels": "a,b,a"}, DataError, "must be different, got 'a' twice."),
        ({"labels": "a", "detector": "word_region"}, UnknownNameError, "word_regions"),
        (
            {"labels": "a", "zoom": 2},
            InputError,
            "The detector word_regions has no parameter 'zoom'. Its parameters are templates,",
        ),
        (
            {"labels": "a", "detector": "word_regions:x"},
            InputError,
            "takes no folder of weights, got 'x'.",
        ),
        ({"labels": "a", "detector": "owlv2"}, InputError, "--method owlv2:/path/to/folder."),
        ({"labels": "a", "levels": (0.0,)}, InputError, "the thresholds `levels` must be between 0 and 1"),
        ({"labels": "a", "rest": ()}, InputError, "0 word(s) in `rest`"),
    ],
)
def test_what_is_refused(given: dict[str, Any], error: type[Exception], says: str) -> None:
    labels = given.pop("labels").split(",")
    with pytest.raises(error) as caught:
        finder_for(detectors, given.pop("detector", "word_regions"), labels, tiny_pair(), **given)
    assert says in str(caught.value)


def test_every_detector_says_what_it_is() -> None:
    assert set(detectors) >= {"word_regions", "owlv2", "grounding_dino"}
    for name in detectors:
        method = detectors[name]
        assert method.name == name == method.__module__.rpartition(".")[2]
        assert all((method.paper, method.needs, method.cost, method.__doc__))
        assert hash(method()) == hash(method())


WORDS = ["<pad>", "a", "photo", "of", "cat", "red", "dog", ".", "<end>"]


def save_tokenizer(folder: Path, **more: Any) -> Any:
    transformers = pytest.importorskip("transformers", reason="the extra 'huggingface' is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", len(WORDS) - 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<end>", model_max_length=16, **more
    )
    fast.save_pretrained(folder)
    return fast


@pytest.fixture(scope="module")
def owl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers", reason="the extra 'huggingface' is not installed")
    folder = tmp_path_factory.mktemp("owl")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Owlv2Config(
        text_config={**small, "vocab_size": len(WORDS), "max_position_embeddings": 16},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    transformers.Owlv2ForObjectDetection(config).eval().save_pretrained(folder)
    images = transformers.Owlv2ImageProcessor(size={"height": 32, "width": 32})
    transformers.Owlv2Processor(images, save_tokenizer(folder)).save_pretrained(folder)
    return folder


@pytest.mark.slow  # three seconds: transformers is imported and a network is saved
def test_owlv2_from_a_folder(owl: Path, tmp_path: Path) -> None:
    import transformers

    pixels = np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8)
    found = finder_for(detectors, f"owlv2:{owl}", ["a cat", "dog"], least=0.0, overlap=1.0).detect(pixels)
    model = transformers.Owlv2ForObjectDetection.from_pretrained(owl)
    processor = transformers.AutoProcessor.from_pretrained(owl)
    given = processor(
        text=[["a photo of a cat.", "a photo of a dog."]], images=Image.fromarray(pixels), return_tensors="pt"
    )
    with torch.no_grad():
        out = model(**given)
    scores, _ = out.logits[0].sigmoid().max(1)
    cx, cy, w, h = (80 * out.pred_boxes[0]).unbind(1)
    theirs = torch.stack([scores, (cx - w / 2).clamp(0, 80), (cy - h / 2).clamp(0, 40)], 1)
    assert len(found) > 3
    for d in found.regions:
        ours = torch.tensor([d.score, *d.box[:2]])
        assert float((theirs - ours).abs().amax(1).min()) < 1e-4
    tiled = finder_for(detectors, f"owlv2:{owl}", ["a cat", "dog"], least=0.0, tiles=2, most=1000).detect(pixels)
    assert tiled.regions[0].box != found.regions[0].box
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in owl.iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    (bare / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(WeightsError, match="pickle"):
        finder_for(detectors, f"owlv2:{bare}", ["cat"])
    with pytest.raises(ModelError, match=r"must contain a 'grounding_dino' network, got 'owlv2'"):
        finder_for(detectors, f"grounding_dino:{owl}", ["cat"])


@pytest.mark.slow  # four seconds: a network with a Swin and a BERT is saved
def test_grounding_dino_from_a_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra 'huggingface' is not installed")
    torch.manual_seed(0)
    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config={"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                     "intermediate_size": 16, "vocab_size": len(WORDS), "max_position_embeddings": 32},
        d_model=64, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=6, max_text_len=16,
    )  # fmt: skip
    transformers.GroundingDinoForObjectDetection(config).eval().save_pretrained(tmp_path)
    images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    transformers.GroundingDinoProcessor(images, save_tokenizer(tmp_path)).save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8)
    found = finder_for(detectors, f"grounding_dino:{tmp_path}", ["red cat", "dog"], least=0.0, overlap=1.0).detect(
        pixels
    )
    assert 1 <= len(found) <= 6
    assert {d.label for d in found.regions} <= {"red cat", "dog"}
    with pytest.raises(
        InputError, match=r"The 20 names must have at most .* tokens together and at least one each, got 41 tokens"
    ):
        finder_for(detectors, f"grounding_dino:{tmp_path}", [f"cat{'s' * i}" for i in range(20)])


def test_whose_words_are_whose(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path)
    owner = words_of_names(tokenizer("red cat. dog.")["input_ids"], tokenizer, 2)
    assert owner.int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]


@pytest.mark.slow  # the shipped encoder at twice its size, through the real command
def test_the_command(tmp_path: Path) -> None:
    import skimage.data

    Image.fromarray(skimage.data.chelsea()).save(tmp_path / "cat.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    for name, file in (("coco", "boxes.json"), ("yolo", "data.yaml"), ("voc", "classes.txt"), ("csv", "boxes.csv")):
        out = tmp_path / name
        given = ["detect", str(tmp_path / "cat.png"), str(tmp_path / "broken.jpg"), "--labels", "cat,grass", "-q"]
        done = CliRunner().invoke(app, [*given, "-o", str(out), "--format", name, "--store", "none"])
        assert done.exit_code == 1, done.output
        assert f"boxes: {out / file}" in done.output
        assert (out / "index.html").exists()
        back = seewhy.load_boxes(out, pictures=tmp_path if name == "yolo" else None)
        boxes = next(p.boxes for p in back.pictures if Path(p.image).name == "cat.png")
        assert boxes
        assert all(b.score is not None for b in boxes)


def test_tiles_of_a_detector_that_must_be_trained_first(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    given = ["detect", str(tmp_path / "a.png"), "--labels", "cat", "--method", "linear", "--tiles", "2"]
    with pytest.raises(InputError, match="The detector linear must be trained on pictures before it can be used"):
        CliRunner().invoke(app, given, catch_exceptions=False)
