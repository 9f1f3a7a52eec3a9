"""What a check is made of, each part beside the answer that it must give, by hand."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.classifiers.encoded_set import EncodedSet
from seewhy.encoders.stream import Encoded
from seewhy.errors import DataError
from seewhy.pictures.images import pixels_of
from seewhy.pictures.samples import Sample, Samples, gathered
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore
from seewhy.studies.inspection import check as checking
from seewhy.studies.inspection.check import (
    COLUMNS,
    Check,
    Finding,
    Like,
    Likes,
    digest_of,
    in_order,
    read_check,
    rows_of,
    sentence,
    small_picture,
)
from seewhy.studies.inspection.faults import (
    Copy,
    HeldOutScores,
    LabelIssues,
    PixelFacts,
    held_out_scores,
    neighbours,
    pixel_facts,
    pixel_faults,
    ranker,
    strangeness,
)
from seewhy.trust.groups import group_folds
from seewhy.trust.measure import drawn_folds
from tiny import COLOURS, TRANSFORM, tiny_cnn

SHARP = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)


def seen_of(labels: str, features: list[list[float]]) -> EncodedSet:
    """Pictures called 0, 1, 2 …, each of a class of one letter."""
    return EncodedSet(
        [Sample(f"{i}.png", k) for i, k in enumerate(labels)],
        [Encoded(f"{i}.png", f"{i:064d}"[::-1], torch.tensor([f])) for i, f in enumerate(features)],
    )


def held_out(p: list[list[float]], labels: list[int], features: list[list[float]], **more: Any) -> HeldOutScores:
    x = torch.tensor(features)
    of = HeldOutScores(
        torch.tensor(p), torch.tensor(labels), x / x.norm(dim=1, keepdim=True), torch.arange(len(p)),
        torch.ones(len(p), dtype=torch.bool),
    )  # fmt: skip
    return replace(of, **more)


def of_labels(seen: EncodedSet, classes: str, given: HeldOutScores, flagged: int, proposed: int) -> Finding:
    n = len(seen.items)
    issues = LabelIssues(torch.arange(n) == flagged, torch.linspace(0, 1, n), torch.full((n,), proposed))
    (found,) = checking._of_labels(seen, tuple(classes), given, issues, set())
    return found


def test_a_doubted_label_comes_with_its_own_figures_and_its_likest_pictures() -> None:
    features = [[1.0, 0.0], [0.8, 0.6], [1.0, 0.1], [1.0, 0.2], [0.6, 0.8], [0.9, 0.5], [1.0, 0.3]]
    p = [[0.1, 0.9], [0.7, 0.3], [0.2, 0.8], [0.3, 0.7], [0.5, 0.5], [0.1, 0.9], [0.4, 0.6]]
    seen, given = seen_of("aabbabb", features), held_out(p, [0, 0, 1, 1, 0, 1, 1], features)
    found = of_labels(seen, "ab", given, 0, 1)
    # Of b's pictures b gets (.8 + .7 + .9 + .6) / 4 = .75.
    assert found.why == (
        "A model trained without this picture gives probabilities of 90 % to 'b' and 10 % to its label 'a'."
    )
    assert found.figures == (
        "Pictures labelled 'b' have a probability of 75 % on average. The nearest picture labelled 'b' has a cosine of "
        "0.99, and the nearest labelled 'a' has 0.80."
    )
    assert [one.image for one in found.like.other] == ["2.png", "3.png", "6.png"], "three, the likest first"
    assert [(one.image, one.cosine) for one in found.like.own] == [("1.png", 0.8), ("4.png", 0.6)]
    assert (found.label, found.proposed, found.doubt, found.key) == ("a", "b", 0.0, "0" * 16)


def test_a_class_that_could_not_be_held_out_is_not_said_to_get_anything() -> None:
    """One of one picture: others can look like it, and nothing says what its own get."""
    features = [[1.0, 0.0], [0.8, 0.6], [1.0, 0.1]]
    given = held_out([[0.1, 0.9], [0.7, 0.3], [0.5, 0.5]], [0, 0, 1], features)
    given = replace(given, judged=torch.tensor([True, True, False]))
    figures = of_labels(seen_of("aab", features), "ab", given, 0, 1).figures
    assert figures.startswith("Pictures labelled 'b' could not be held out. The nearest")


def test_a_stranger_is_told_by_how_far_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    features = [[1.0, 0.0], [0.8, 0.6], [1.0, 0.1]]
    seen, given = seen_of("aab", features), held_out([[0.5, 0.5]] * 3, [0, 0, 1], features)
    drawn = []

    def folds(groups: torch.Tensor, seed: int) -> torch.Tensor:
        drawn.append(seed)
        return torch.zeros(len(groups), dtype=torch.long)

    monkeypatch.setattr(checking, "drawn_folds", folds)
    monkeypatch.setattr(checking, "strangeness", lambda *_: torch.tensor([9.0, 4.5, -20.0]))
    (found,) = checking._of_strangers(seen, given, 7)
    assert drawn == [7]
    assert (found.image, found.doubt) == ("0.png", 0.75), "twice as far as a stranger: half of the rest"
    assert found.why == "It looks unlike every class: its outlier score is 9.0, above the limit of 4.5."
    assert found.figures.endswith("median. The nearest picture with its label has a cosine of 0.80.")
    assert found.like.own == (Like("1.png", "a", 0.8),)


def photos(root: Path, n: int = 6) -> list[Sample]:
    """Two classes, told apart by colour."""
    draw, items = np.random.default_rng(3), []
    root.mkdir()
    for i in range(2 * n):
        label = ("moss", "sky")[i % 2]
        blocks = np.kron(draw.integers(0, 120, (8, 8, 1)), np.ones((8, 8, 3)))
        Image.fromarray((0.5 * blocks + 0.5 * np.array(COLOURS[label])).astype(np.uint8)).save(root / f"{i}.png")
        items.append(Sample(str(root / f"{i}.png"), label))
    return items


def test_groups_and_seed_reach_heads_and_gaussians(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [replace(one, group="visit" if i < 3 else None) for i, one in enumerate(photos(tmp_path / "a"))]
    told = []

    def spied(*given: Any) -> HeldOutScores:
        told.append(given[-2:])
        return held_out_scores(*given)

    def folds(groups: torch.Tensor, seed: int) -> torch.Tensor:
        told.append((groups, seed))
        return drawn_folds(groups, seed)

    monkeypatch.setattr(checking, "held_out_scores", spied)
    monkeypatch.setattr(checking, "drawn_folds", folds)
    Check(seed=5).run(tiny_cnn(), gathered(items))
    (groups, seed), (same, again) = told
    assert seed == again == 5
    assert torch.equal(groups, same)
    assert len(groups[:3].unique()) == 1
    assert len(groups.unique()) == 10


def test_notes_failures_and_counts_are_of_what_was_given(tmp_path: Path) -> None:
    items = photos(tmp_path / "a")
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG")
    (tmp_path / "b").mkdir()
    for name in ("one.png", "two.png"):
        shutil.copy(items[0].image, tmp_path / "b" / name)
        Image.fromarray(SHARP).save(tmp_path / "b" / f"new_{name}")
    (tmp_path / "b" / "other.png").write_bytes(b"\x89PNG")
    against = Samples(tuple(Sample(str(p)) for p in sorted((tmp_path / "b").iterdir())), ())
    progress = Progress()
    progress.note("heard before")
    samples = gathered([*items, Sample(str(tmp_path / "a" / "broken.png"), "sky")], ["two rows left out"])
    store = FeatureStore(tmp_path / "s.sqlite")
    data = Check().run(tiny_cnn(), samples, against=against, store=store, progress=progress).data
    assert data["notes"] == ["two rows left out", "heard before"]
    assert data["n"] == 12
    assert " findings in 13 pictures: " in data["sentence"]
    assert [Path(one["image"]).name for one in data["failures"]] == ["broken.png", "other.png"]
    assert [Path(f["image"]).name for f in data["findings"] if f["kind"] == "broken"] == ["broken.png"]
    # Its copies of the other split are two findings; that those two are one picture is none.
    splits = [f for f in data["findings"] if f["kind"] == "split"]
    assert [[Path(name).name for name in f["with"]] for f in splits] == [["one.png"], ["two.png"]]
    assert splits[0]["why"] == f"A copy of it, {tmp_path / 'b' / 'one.png'}, is in the other split (same file)."
    assert data["counts"]["copy"] == data["counts"]["contradiction"] == 0
    assert store._db.execute("SELECT COUNT(*) FROM looks_2").fetchone()[0] == 13


def test_a_copy_of_the_other_split_says_its_other_label_and_a_contradiction_both() -> None:
    seen = seen_of("ab", [[1.0, 0.0], [1.0, 0.0]])
    other = EncodedSet([Sample("x.png", "b"), Sample("y.png")], seen.encoded)
    copies = [Copy(0, 1, 0.98, False), Copy(0, 2, 1.0, True), Copy(0, 3, 1.0, True)]
    first, second, split, plain = checking._of_copies(seen, other, copies)
    assert first.why == "It is labelled 'a', but its copy 1.png is labelled 'b' (agreement 0.98 of 1)."
    assert (first.image, first.key[0], first.proposed, first.pictures) == ("0.png", "0", "b", ("1.png",))
    assert (second.image, second.key[0], second.proposed, second.pictures) == ("1.png", "1", "a", ("0.png",))
    assert split.why == "A copy of it, x.png, is in the other split, labelled 'b' (same file)."
    assert "labelled" not in plain.why


def test_what_is_no_size_of_the_view_is_odd_for_its_file(tmp_path: Path) -> None:
    """Views are all of one size; the file's own counts."""
    items = photos(tmp_path / "a")
    big = Image.open(items[0].image).resize((256, 256))
    big.save(items[0].image)
    data = Check().run(tiny_cnn(), gathered(items)).data
    assert [f["why"] for f in data["findings"] if f["kind"] == "size"] == [
        "At 256 × 256 pixels, its area is 16.0 times larger than the median; limit 4."
    ]


def test_the_digest_is_of_names_from_where_all_lie_and_labels() -> None:
    given = [Sample("/a/x/1.png", "moss"), Sample("/a/y/2.png", "sky")]
    assert digest_of(given) == digest_of([replace(s, image=s.image.replace("/a/", "/b/c/")) for s in given])
    assert digest_of(given) != digest_of([given[0], replace(given[1], label="moss")])
    assert digest_of(given) != digest_of([given[0], replace(given[1], image="/a/y/3.png")])
    assert digest_of(given) != digest_of(given[::-1])


def test_pictures_of_the_page_that_are_gone_are_none(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    Image.fromarray(np.repeat(SHARP, 8, 1)).save(tmp_path / "wide.png")
    framed = np.full((300, 300, 3), 200, np.uint8)
    framed[150:, 150:] = 20
    Image.fromarray(framed).save(tmp_path / "framed.png")
    small = small_picture(str(tmp_path / "framed.png"))
    assert small is not None
    assert (small[:60] == 200).all()
    assert (small[68:, 68:] == 20).all(), "all of it is shown"
    for show, side in ((partial(pixels_of, transform=TRANSFORM), TRANSFORM.input_size), (small_picture, (128, 128))):
        assert show(str(tmp_path / "broken.png")) is None
        shown = show(str(tmp_path / "wide.png"))
        assert shown is not None
        assert shown.shape == (*side, 3)


def test_findings_are_in_order_and_told_by_name() -> None:
    given = [
        Finding("copy", "a", "x", "k", ".", doubt=0.9), Finding("label", "c", "x", "k", ".", doubt=0.5),
        Finding("label", "b", "x", "k", ".", doubt=0.5), Finding("label", "d", "x", "k", ".", doubt=0.7),
    ]  # fmt: skip
    assert [(f.kind, f.image) for f in in_order(given)] == [
        ("label", "d"),
        ("label", "b"),
        ("label", "c"),
        ("copy", "a"),
    ]
    assert [(f.kind) for f in in_order([Finding("split", "a", "x", "k", "."), given[1]])] == ["label", "split"]
    assert sentence(1200, {"label": 1}) == "1 finding in 1,200 pictures: label likely wrong (1)."
    assert sentence(2, {"label": 0}) == "No problems found in 2 pictures."
    own, other = Like("o", "x", 0.5), Like("p", "y", 0.4)
    told = replace(given[0], like=Likes((own,), (other,)), pictures=("b.png", "c.png")).to_json()
    (row,) = rows_of([told])
    assert dict(zip(COLUMNS, row, strict=True))["with"] == "b.png|c.png"
    assert told["like"] == {"own": [vars(own)], "other": [vars(other)]}


@pytest.mark.parametrize("text", [None, "{", "[]", "3", '{"findings": 3}'])
def test_an_earlier_check_that_cannot_be_read_is_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "check.json").write_text(text)
    with pytest.raises(DataError, match=r"check\.json is not a valid file of seewhy check: .*"):
        read_check(tmp_path, tmp_path, [Sample("a.png", "x")])


def test_odds_propose_another_class_also_where_all_others_get_nothing() -> None:
    given = held_out([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[1.0, 0.0]] * 2)
    assert ranker("odds")(given).proposed.tolist() == [1, 0]


def test_only_those_judged_count_for_the_accuracy() -> None:
    given = held_out([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]], [0, 1, 1], [[1.0, 0.0]] * 3)
    assert replace(given, judged=torch.tensor([True, True, False])).accuracy == 0.5
    assert replace(given, judged=torch.tensor([True, False, False])).thresholds().tolist() == pytest.approx([0.9, 2.0])


def test_heads_are_held_out_by_group_and_a_lone_picture_is_judged_by_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [*photos(tmp_path / "a"), Sample(str(tmp_path / "gold.png"), "gold")]
    Image.fromarray(np.full((64, 64, 3), (220, 200, 30), np.uint8)).save(tmp_path / "gold.png")
    seen, _ = checking._look(tiny_cnn(), items, None, Progress(), [])
    wrong = [replace(s, label="sky") if i == 0 else s for i, s in enumerate(items)]
    drawn = []

    def folds(labels: torch.Tensor, groups: torch.Tensor, n: int, seed: int) -> torch.Tensor:
        drawn.append((groups, n, seed))
        return group_folds(labels, groups, n, seed)

    monkeypatch.setattr("seewhy.studies.inspection.faults.group_folds", folds)
    found = held_out_scores(tiny_cnn(), wrong, seen.encoded, ("gold", "moss", "sky"), torch.arange(13), 1)
    ((groups, n, seed),) = drawn
    assert (groups.tolist(), n, seed) == ([*range(13)], 5, 1)
    assert found.judged.tolist() == [True] * 12 + [False]
    assert found.probabilities[12].tolist() == pytest.approx([1 / 3] * 3)
    assert found.probabilities[:12].argmax(1).tolist() == [1, 2] * 6, "the wrong label is not learnt by heart"
    rooted = seen.pooled.sign() * seen.pooled.abs().sqrt()
    torch.testing.assert_close(found.features, rooted / rooted.norm(dim=1, keepdim=True))


def test_confident_counts_a_class_at_its_mean_and_only_there() -> None:
    """The third picture reaches the second class alone, though the first is likelier; the fourth reaches none."""
    p = [[0.6, 0.3, 0.1], [0.4, 0.2, 0.4], [0.49, 0.4, 0.11], [0.3, 0.2, 0.5], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6]]
    given = held_out(p, [0, 0, 0, 1, 1, 2], [[1.0, 0.0]] * 6)
    # The means are .497, .25 and .6.
    found = ranker("confident")(given)
    assert found.flagged.tolist() == [False, False, True, False, True, False]
    assert found.proposed[[2, 4]].tolist() == [1, 2]
    # Means of .5, .9 and .4: the last picture reaches the third class, which is proposed, and not the likeliest other.
    p = [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.3, 0.3, 0.4], [0.1, 0.5, 0.4]]
    found = ranker("confident")(held_out(p, [0, 1, 2, 0], [[1.0, 0.0]] * 4))
    assert (found.flagged.tolist(), found.proposed[3].item()) == ([False] * 3 + [True], 2)


def test_cleanlab_is_asked_of_those_judged_with_what_adds_up_to_1(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def issues(labels: np.ndarray, p: np.ndarray, n_jobs: int) -> np.ndarray:
        asked.append((labels.tolist(), p.tolist()))
        return np.array([True, False])

    filtering, ranking = ModuleType("cleanlab.filter"), ModuleType("cleanlab.rank")
    vars(filtering)["find_label_issues"] = issues
    vars(ranking)["get_label_quality_scores"] = lambda labels, p: p[np.arange(len(p)), labels]
    for module in (ModuleType("cleanlab"), filtering, ranking):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    given = held_out([[0.5, 1.5], [0.5, 0.5], [3.0, 1.0]], [0, 1, 1], [[1.0, 0.0]] * 3)
    found = ranker("cleanlab")(replace(given, judged=torch.tensor([True, False, True])))
    assert asked == [([0, 1], [[0.25, 0.75], [0.75, 0.25]])]
    assert found.flagged.tolist() == [True, False, False]
    assert found.doubt.tolist() == pytest.approx([0.75, 0.0, 0.75])
    assert not ranker("cleanlab")(replace(given, judged=torch.zeros(3, dtype=torch.bool))).flagged.any()
    assert len(asked) == 1, "of nobody nothing is asked"


def test_votes_weigh_as_much_as_their_cosine_and_a_half_is_not_most() -> None:
    x = [[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]]
    found = neighbours(held_out([[0.5, 0.5]] * 5, [0, 1, 0, 1, 1], x), k=2)
    # The first has 1 for the second class and .6 for its own.
    assert found.doubt[0].item() == pytest.approx((1 + 1 / 1.6 - 0.6 / 1.6) / 2)
    assert found.flagged[0]
    half = held_out([[0.5, 0.5]] * 4, [0, 0, 1, 1], [[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 1.0]])
    assert not neighbours(half, k=2).flagged[0]
    # Opposite to all others: no votes, and nothing to doubt.
    assert (found.flagged[4].item(), found.doubt[4].item()) == (False, 0.5)
    few = neighbours(held_out([[0.5, 0.5]] * 3, [0, 0, 1], [[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]]), k=10)
    assert few.flagged[2]


def test_strangers_count_in_robust_deviations_above_the_median() -> None:
    draw = torch.Generator().manual_seed(0)
    labels, folds = torch.arange(60) % 3, torch.arange(60) % 5
    pooled = torch.eye(3, 12)[labels] * 4 + 0.3 * torch.rand(60, 12, generator=draw)
    far = strangeness(pooled, labels, folds, 3)
    assert float(far.median()) == 0
    assert float(far.abs().median()) == pytest.approx(1 / 1.4826, rel=1e-4)
    assert float(far.min()) < 0
    torch.testing.assert_close(strangeness(pooled, labels, folds + 2, 3), far)
    assert not strangeness(pooled, torch.zeros(60, dtype=torch.long), folds, 3).any()
    assert not strangeness(pooled[:29], labels[:29], folds[:29], 3).any()
    assert strangeness(pooled[:30], labels[:30], folds[:30], 3).any()
    # A class that a fold alone has is of nobody when that fold is asked.
    lone = labels.clone()
    lone[5] = 3
    assert strangeness(pooled, lone, folds, 4).isfinite().all()
    alike = torch.eye(3, 12)[labels]
    assert strangeness(alike, labels, folds, 3).isfinite().all()


def facts(**changed: Any) -> PixelFacts:
    return replace(PixelFacts((64, 64), 0.1, 0.9, 0.2, 0.3), **changed)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"spread": 0.0149}, ("blank", 1 - 0.0149 / 0.015)), ({"spread": 0.0151}, None),
        ({"high": 0.29}, ("dark", 1 - 0.29 / 0.3)), ({"high": 0.31}, None),
        ({"low": 0.96, "high": 0.99}, ("overexposed", 0.2)), ({"low": 0.94, "high": 0.99}, None),
        ({"blur": 0.72, "size": (96, 100)}, ("blurred", 0.2)), ({"blur": 0.64, "size": (96, 100)}, None),
        ({"blur": 0.72, "size": (100, 95)}, None),
        ({"size": (128, 128)}, ("size", 0.5)), ({"size": (127, 128)}, None),
        ({"size": (256, 256)}, ("size", 0.875)),
        ({"size": (128, 32)}, ("shape", 0.5)), ({"size": (256, 32)}, ("shape", 0.75)), ({"size": (124, 32)}, None),
    ],
)  # fmt: skip
def test_faults_begin_at_their_limits(changed: dict[str, Any], expected: tuple[str, float] | None) -> None:
    found = [(kind, bad) for i, kind, bad, _ in pixel_faults([facts()] * 4 + [facts(**changed)]) if i == 4]
    assert found == ([] if expected is None else [(expected[0], pytest.approx(expected[1]))])


def test_odd_sizes_say_which_way_and_one_of_them_moves_no_median() -> None:
    usual = [facts()] * 2
    *_, (_, _, _, huge) = pixel_faults([*usual, facts(size=(6400, 6400))])
    assert huge == "At 6400 × 6400 pixels, its area is 10000.0 times larger than the median; limit 4."
    (small,) = (why for _, kind, _, why in pixel_faults([*usual, facts(size=(16, 16))]) if kind == "size")
    assert small.startswith("At 16 × 16 pixels, its area is 16.0 times smaller than")
    (wide,) = (why for _, kind, _, why in pixel_faults([*usual, facts(size=(160, 32))]) if kind == "shape")
    assert wide.startswith("At 160 × 32 pixels, its shape is 5.0 times wider than")
    (high,) = (why for _, kind, _, why in pixel_faults([*usual, facts(size=(32, 160))]) if kind == "shape")
    assert high.startswith("At 32 × 160 pixels, its shape is 5.0 times taller than")


def test_facts_of_a_picture_by_hand() -> None:
    red = pixel_facts(np.broadcast_to(np.uint8([255, 0, 0]), (32, 32, 3)), (9, 7))
    assert (red.size, red.low, red.high, red.spread) == ((9, 7), pytest.approx(0.299), pytest.approx(0.299), 0.0)
    half = np.zeros((32, 32, 3), np.uint8)
    half[:, 16:] = 255
    found = pixel_facts(half, (32, 32))
    assert found.spread == 0.5
    corner = np.zeros((40, 40, 3), np.uint8)
    corner[:1, :1] = 255
    assert pixel_facts(corner, (40, 40)).high == 0, "one point in a hundred is no brightness"
    for side in (8, 10):
        assert pixel_facts(SHARP[:side, :side], (side, side)).blur == 0, "too small to be blurred over nine"


def test_blur_is_of_the_worse_direction() -> None:
    """Stripes from a wave: smooth along one axis, noise along the other."""
    wave = (127 + 100 * np.sin(np.arange(64) / 10)).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 100, 64)
    both = (wave[None, :] // 2 + noise[:, None]).astype(np.uint8)[..., None].repeat(3, 2)
    across, down = (pixel_facts(one, (64, 64)).blur for one in (both, both.transpose(1, 0, 2)))
    assert across == pytest.approx(down)
    assert across > 0.8
    edge = np.zeros((64, 64, 3), np.uint8)
    edge[:, 32:] = 255
    # An edge of one step becomes a ramp of nine: a ninth of it is left where it was.
    assert pixel_facts(edge, (64, 64)).blur == pytest.approx(1 / 9, abs=1e-5)
