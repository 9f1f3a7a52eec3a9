"""Boxes and segments explained: planted evidence is shown where it is, and what comes from outside is told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize
from typer.testing import CliRunner

from schemas import check
from seewhy.cli import app
from seewhy.dense import Detections, Detector, Region, Segmenter
from seewhy.dense.denseclip import Decoded, DenseCLIP
from seewhy.dense.detection.linear import Axes, RegionProbe
from seewhy.dense.detection.trained import TrainedDetector
from seewhy.dense.finders import Presence
from seewhy.dense.linear import Affine, Linear
from seewhy.dense.maskclip import MaskCLIP
from seewhy.dense.part_evidence import PartExplainer, elsewhere, with_examples
from seewhy.dense.parts import PartEngine, WholePicture, part_encoder, place_of
from seewhy.dense.saving import save_segmenter
from seewhy.dense.word_regions import RegionDetector, WordRegions
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.errors import DataError, InputError
from seewhy.evidence.explain import ExplainOptions
from seewhy.explanation.base import Explanation, Where
from seewhy.explanation.similar import Like
from seewhy.pictures.boxes import BoxData, BoxedPicture, BoxRecord, save_boxes
from seewhy.progress import Progress
from seewhy.types import Failure
from tiny import Channels, HashedWords, build

RED, GREEN, GREY = (220, 30, 30), (30, 220, 30), (90, 90, 90)
NAMES = ["red", "green"]


class Marked(nn.Module):
    """Cells are their mean colour, and beside it that of the picture's upper left corner, wherever they lie."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 4) + 3 * x[:, :, :8, :8].mean((2, 3))[:, :, None, None]


def colours(trunk: nn.Module | None = None) -> Encoder:
    """Cells are colours, and each word is one."""
    words: Any = HashedWords(3, {w: torch.eye(3)[i] for i, w in enumerate(("red", "green", "background"))})
    words.project = lambda pooled: pooled + 0.5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(trunk or Channels(), GlobalAverage(), Layout(), 3, text=words)


def painted(places: dict[tuple[int, int, int, int], tuple[int, int, int]], side: int = 64) -> np.ndarray:
    pixels = np.full((side, side, 3), GREY, np.uint8)
    for (left, top, right, bottom), colour in places.items():
        pixels[top:bottom, left:right] = colour
    return pixels


def explained(
    detector: RegionDetector, pixels: np.ndarray, box: tuple[float, float, float, float], **options: Any
) -> Explanation:
    found = Detections("a.png", (64, 64), detector.classes, (Region("red", 0.5, box),), {}, pixels)
    (why,) = PartExplainer.of(detector).explain(pixels, found, ExplainOptions(**options))
    return why


def test_evidence_planted_in_a_box_is_where_it_is_and_none_of_it_outside() -> None:
    detector = WordRegions(least_presence=0.0).build(NAMES, colours())
    why = explained(detector, painted({(32, 16, 48, 32): RED}), (16.0, 16.0, 48.0, 48.0))
    assert isinstance(why.where, Where)
    heat = why.where.heat
    assert heat.shape == (8, 8)
    # The red lies in the upper right quarter of the box.
    assert heat[:4, 4:].min() > max(heat[4:].max(), heat[:, :4].max())
    assert why.where.verdict.level == "believable"
    assert why.where.deletion is not None
    assert why.where.deletion_random is not None
    assert why.where.deletion < why.where.deletion_random
    part = why.part
    assert part is not None
    assert part.outside is not None
    assert why.part.box == (16, 16, 48, 48)
    assert why.part.mask is None
    assert part.outside.verdict.level == "believable"
    assert part.outside.share_inside == pytest.approx(1, abs=1e-5)
    assert part.outside.fall_outside == pytest.approx(0, abs=1e-5)
    assert max(map(abs, part.outside.falls_elsewhere)) < 0.01 * part.outside.fall_inside
    assert part.outside.without_inside < part.outside.probability


def test_a_detector_that_looks_at_a_mark_outside_is_told() -> None:
    detector = WordRegions(least_presence=0.0).build(NAMES, colours(Marked()))
    pixels = painted({(0, 0, 8, 8): RED, (32, 32, 48, 48): GREEN})
    why = explained(detector, pixels, (32.0, 32.0, 48.0, 48.0))
    assert why.part is not None
    outside = why.part.outside
    assert outside is not None
    assert outside.verdict.level == "do not rely"
    assert outside.share_inside < 0.5
    assert outside.without_outside < outside.probability / 2
    clean = explained(WordRegions(least_presence=0.0).build(NAMES, colours()), pixels, (0.0, 0.0, 8.0, 8.0))
    assert clean.part is not None
    assert clean.part.outside is not None
    assert clean.part.outside.share_inside > 0.99


def test_the_probability_is_the_detectors_and_the_heat_adds_up_to_it() -> None:
    detector = WordRegions(least_presence=0.0).build(NAMES, colours())
    pixels, box = painted({(20, 8, 50, 40): RED, (0, 30, 30, 64): GREEN}), (13.0, 5.0, 42.0, 47.0)
    score = detector.pooled()
    whole = WholePicture(score, pixels)
    place = place_of(whole, box, None)
    pooled = place.cut(whole.own_cells).mean((2, 3))
    looked = next(iter(detector.reader.looked([pixels])))
    assert not isinstance(looked, Failure)
    from seewhy.dense.cells import joint_cells
    from seewhy.dense.reader import box_means

    cells = joint_cells(detector.reader.encoder, looked.features)[0]
    own = box_means(cells, torch.tensor([box]) * cells.shape[1] / 64)
    assert torch.allclose(pooled, own, atol=1e-5)
    why = explained(detector, pixels, box, measure=False)
    sure = (score.head.scale * normalize(own, dim=1) @ detector.words.texts.T).softmax(1)[0]
    assert why.prediction.label == "red"
    assert why.prediction.score == pytest.approx(float(sure[0]), abs=1e-5)
    logits = score.head(own)[0]
    assert isinstance(why.where, Where)
    from seewhy.attributions.shares import cell_evidence
    from seewhy.encoders.base import EncoderOutput
    from seewhy.heads.head import Target

    model = PartExplainer.of(detector).model
    features = place.cut(whole.own_cells)
    part = type(model)(**{**model.__dict__, "encoder": part_encoder(PartEngine(whole, place))})
    evidence = cell_evidence(part, EncoderOutput(features, pooled), Target(torch.tensor([0])))
    # Mean-pooled cells among the words have length 1, so nothing but the mean over classes is taken off.
    assert float(evidence.sum()) == pytest.approx(float(logits[0] - logits.mean()), abs=1e-4)


def test_only_the_parts_own_pixels_are_changed_inside_and_all_others_outside() -> None:
    detector = WordRegions(least_presence=0.0).build(NAMES, colours())
    whole = WholePicture(detector.pooled(), painted({(20, 20, 40, 40): RED}))
    place = place_of(whole, (18.0, 20.0, 40.0, 41.0), None)
    top, bottom, left, right = place.pixels
    assert (top, bottom, left, right) == (20, 44, 16, 40)
    assert place.inside.nonzero().amin(0).tolist() == [20, 18]
    assert place.inside.nonzero().amax(0).tolist() == [40, 39]
    engine = PartEngine(whole, place)
    unchanged = whole.pixels[None, :, top:bottom, left:right]
    assert torch.equal(engine(unchanged), place.cut(whole.own_cells))
    changed = engine(torch.full_like(unchanged, 5.0))
    copies = torch.where(place.inside, 5.0, whole.pixels)[None]
    assert torch.equal(changed, PartEngine(whole, place, anywhere=True)(copies))
    assert float(place.weights.mean()) == pytest.approx(1)


def test_the_same_shape_elsewhere_is_as_large_and_mostly_elsewhere() -> None:
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[4:12, 4:12] = True
    moved = elsewhere(inside, 0)
    assert moved.sum((1, 2)).tolist() == [64] * 4
    assert not (moved & inside).any()
    assert torch.equal(moved, elsewhere(inside, 0))
    assert not torch.equal(moved, elsewhere(inside, 1))


@pytest.mark.parametrize("size", [(64, 64), (160, 60)])
def test_a_segments_probability_is_the_mean_of_its_scores(size: tuple[int, int]) -> None:
    pixels = np.full((size[1], size[0], 3), GREEN, np.uint8)
    pixels[:, : size[0] // 2] = RED
    segmenter = MaskCLIP(least_presence=0.0).build(colours(), NAMES)
    whys = segmenter.explain(pixels, measure=False)
    found = segmenter.segment(pixels)
    assert [why.part.label for why in whys if why.part] == [s.label for s in found.regions]
    for why in whys:
        assert why.part is not None
        assert np.array_equal(why.part.mask, found.mask_of(why.part.label))
        covered = np.asarray(
            Image.fromarray(why.part.mask).resize(found.scores.shape[:0:-1], Image.Resampling.BOX), float
        )
        mean = (found.scores * covered).sum((1, 2)) / covered.sum()
        p = torch.tensor(segmenter.scorer.scale * mean).softmax(0)
        assert why.prediction.score == pytest.approx(float(p[NAMES.index(why.part.label)]), abs=0.02)


def test_a_segment_is_explained_within_its_pixels() -> None:
    pixels = painted({(0, 0, 32, 64): RED, (32, 0, 64, 64): GREEN})
    red = next(
        w
        for w in MaskCLIP(least_presence=0.0).build(colours(), NAMES).explain(pixels)
        if w.part and w.part.label == "red"
    )
    assert isinstance(red.where, Where)
    assert red.part is not None
    assert red.part.outside is not None
    assert red.part.outside.fall_inside > max(red.part.outside.falls_elsewhere)
    check("explanation", [red.to_json()])
    assert red.to_json()["part"]["rle"]["size"] == [64, 64]


def scorers() -> Iterator[Segmenter]:
    encoder = colours()
    yield MaskCLIP(least_presence=0.0).build(encoder, NAMES)
    yield Linear().segmenter(encoder, tuple(NAMES), Affine(torch.randn(2, 3), torch.randn(2)))
    how = DenseCLIP(width=8)
    yield how.segmenter(
        encoder, tuple(NAMES), Decoded(how._decoder([3], torch.eye(3)[:2], None).eval().requires_grad_(False), how)
    )


@pytest.mark.parametrize("method", ["maskclip", "linear", "denseclip"])
def test_every_scorer_is_its_layer_on_cells(method: str) -> None:
    segmenter = next(s for s in scorers() if s.method == method)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = segmenter.encoder.forward_features(pixels)
    score = segmenter.scorer.pooled(segmenter)
    cells = score.cells(segmenter.encoder, features)
    logits = score.head(cells.permute(0, 2, 3, 1).flatten(0, 2)).unflatten(0, (2, 16, 16)).permute(0, 3, 1, 2)
    expected = segmenter.scorer.scale * segmenter.scorer.scores(segmenter.encoder, features)
    assert torch.allclose(logits, expected, atol=1e-4)


def test_a_trained_probe_of_regions_is_explained_through_all_its_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    axes = Axes(torch.zeros(3), torch.eye(3)[:2])
    weight = torch.randn(2 + 5, 10 * 2 + 2, generator=generator)
    probe = RegionProbe(axes, torch.tensor([[0.3, 0.4]]), weight, torch.zeros(7), 3, 0.25)
    detector = TrainedDetector("linear", {}, colours(), ("red", "green"), probe, (0.0, 0.0))
    pixels = painted({(16, 20, 40, 40): RED, (36, 36, 60, 60): GREEN})
    found = detector.detect(pixels)
    whys = detector.explain(pixels, most=3)
    assert len(whys) == 3
    for why, one in zip(whys, found.regions, strict=False):
        assert why.part is not None
        assert (why.part.box, why.part.label) == (one.box, one.label)
        assert why.prediction.label == one.label
        assert why.prediction.score == pytest.approx(one.score, abs=1e-4)
        assert isinstance(why.where, Where)
        # Its surroundings are read as well, so the heat reaches beyond the box.
        left, top, right, bottom = why.part.frame
        assert (right - left) * (bottom - top) > (one.box[2] - one.box[0]) * (one.box[3] - one.box[1])


def test_parts_are_likened_to_known_parts_and_never_to_themselves(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    records = []
    for i in range(8):
        x = 4 * i
        file = tmp_path / "images" / f"{i}.png"
        Image.fromarray(painted({(x, 8, x + 16, 24): RED, (x + 16, 40, x + 32, 56): GREEN})).save(file)
        boxes = (((x, 8, x + 16, 24), "red"), ((x + 16, 40, x + 32, 56), "green"), ((0, 0, 9, 9), "other"))
        records.append(BoxedPicture(str(file), (64, 64), tuple(BoxRecord(b, label) for b, label in boxes)))
    save_boxes(BoxData(tuple(records), ("red", "green", "other")), tmp_path)
    detector = WordRegions(least_presence=0.0).build(NAMES, colours())
    progress = Progress()
    known = with_examples(PartExplainer.of(detector), tmp_path / "boxes.json", progress)
    assert progress.notes == ["1 class(es) of the examples are not among the names to find: other"]
    assert known.model.bank is not None
    assert len(known.model.bank.pictures) == 16
    assert known.model.likeness is not None
    assert (known.model.likeness.n, known.model.likeness.precision) == (8, 1.0)
    file = str(tmp_path / "images" / "3.png")
    (why,) = known.explain(file, known.finder.find(file), ExplainOptions(measure=False), [1])
    assert isinstance(why.like, Like)
    assert {one.label for one in why.like.neighbours} == {why.prediction.label}
    assert file not in {one.image for one in why.like.neighbours}
    with pytest.raises(DataError, match="shows one of blue"):
        with_examples(
            PartExplainer.of(WordRegions(least_presence=0.0).build(["blue"], colours())), tmp_path / "boxes.json"
        )


def test_examples_may_be_folders_of_classes_or_masks(tmp_path: Path) -> None:
    for name, colour in (("red", RED), ("green", GREEN)):
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.fromarray(painted({(0, 0, 64, 64): colour})).save(tmp_path / "classes" / name / "a.png")
    masks = tmp_path / "masks"
    (masks / "images").mkdir(parents=True)
    (masks / "labels").mkdir()
    Image.fromarray(painted({(0, 0, 32, 64): RED, (32, 0, 64, 64): GREEN})).save(masks / "images" / "a.png")
    Image.fromarray(np.repeat(np.uint8([[0] * 32 + [1] * 32]), 64, 0)).save(masks / "labels" / "a.png")
    (masks / "classes.txt").write_text("red\ngreen\n")
    explainer = PartExplainer.of(MaskCLIP(least_presence=0.0).build(colours(), NAMES))
    for source in (tmp_path / "classes", masks):
        bank = with_examples(explainer, source).model.bank
        assert bank is not None
        assert sorted(p.label for p in bank.pictures) == [0, 1]


def test_descriptions_are_words_of_a_part() -> None:
    told = {"red": ["red as rust"], "green": ["green as moss"]}
    (why,) = (
        WordRegions(least_presence=0.0)
        .build(NAMES, colours())
        .explain(painted({(16, 16, 48, 48): RED}), most=1, descriptions=told, measure=False)
    )
    assert why.to_json()["words"][0]["text"] == "red as rust"
    linear = Linear().segmenter(colours(), tuple(NAMES), Affine(torch.randn(2, 3), torch.zeros(2)))
    assert linear.explain(painted({}), descriptions=told, measure=False)[0].to_json()["words"]


class Elsewhere(Detector):
    """One that does not pool cells."""

    classes = ("red",)

    def find_all(self, pictures: Iterable[Any]) -> Iterator[Detections | Failure]:
        yield Failure("a", "b")


def test_what_cannot_be_explained_is_named() -> None:
    with pytest.raises(InputError, match="not computed from the grid cells"):
        Elsewhere().explain(painted({}))
    detector = WordRegions(least_presence=0.0).build(NAMES, colours())
    pixels = painted({(16, 16, 48, 48): RED})
    for options, named in (
        ({"layer": "0"}, "an inner layer"),
        ({"neurons": 3}, "neurons"),
        ({"where": "attention_rollout"}, "attention_rollout"),
        ({"where": "integrated_gradients"}, "method that reads inner layers"),
    ):
        with pytest.raises(InputError, match=named):
            detector.explain(pixels, most=1, measure=False, **options)
    why = detector.explain(pixels, most=1, measure=False, where="occlusion")[0]
    assert isinstance(why.where, Where)
    assert (why.where.heat != 0).any()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "a.dot.png"
    Image.fromarray(painted({(8, 8, 24, 40): RED, (40, 20, 60, 60): GREEN})).save(file)
    return file


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["explain", *map(str, words), "-q", "--store", "none"])


def test_every_box_gets_a_card_and_the_second_run_keeps_them(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Presence, "found", lambda _self, presence: torch.ones_like(presence, dtype=torch.bool))
    given = (picture, "--labels", "red, green", "--parts", "word_regions", "--no-measure", "-o", tmp_path / "why")
    first = run(*given, "--json", "--set", "most_cards=2")
    assert first.exit_code == 0, first.output
    rows = [json.loads(line) for line in first.stdout.splitlines()]
    check("explain", rows)
    assert [row["part"]["number"] for row in rows] == [1, 2]
    assert all(Path(row["card"]).is_file() for row in rows)
    assert len({row["card"] for row in rows}) == 2
    page = (tmp_path / "why" / "index.html").read_text("utf-8")
    assert "2 boxes" in page
    assert page.count('title="Inside it: Not measured"') == 2
    assert f"box 1 of {rows[0]['part']['n']}" in Path(rows[0]["card"]).read_text("utf-8")
    again = run(*given, "--set", "most_cards=2")
    assert again.stdout.count("(kept)") == 2
    assert run(*given, "--set", "most_cards=1", "--seed", "1").stdout.count("(kept)") == 0


def test_a_saved_segmenter_explains_and_what_is_wrong_is_said(picture: Path, tmp_path: Path) -> None:
    import seewhy

    folder = save_segmenter(
        MaskCLIP(least_presence=0.0).build(seewhy.encoder("lite0"), ["red", "green"]), tmp_path / "seg"
    )
    found = run(picture, "-m", folder, "--no-measure", "--json")
    assert found.exit_code == 0, found.output
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    check("explain", rows)
    assert {row["part"]["kind"] for row in rows} == {"segment"}
    for words, said in (
        (("-m", folder, "--labels", "red"), "--model and --labels cannot be combined"),
        (("--parts", "word_regions"), "--parts requires names of what to find"),
        (("--labels", "red", "--parts", "owlv2"), "needs a folder of weights"),
        (("--labels", "red, green", "--parts", "linear"), "must be trained on pictures"),
        (("-m", folder, "--set", "neurons=3"), "cannot be explained with neurons"),
        (("-m", folder, "--validation", picture.parent), "--validation applies to whole pictures"),
        (("-m", folder, "-o", tmp_path / "a.html"), "must be a folder, got the file"),
    ):
        wrong = run(picture, *words)
        assert isinstance(wrong.exception, InputError), wrong.output
        assert said in str(wrong.exception)
