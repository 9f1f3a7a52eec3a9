"""Measures that nobody else has, on worlds in which their value is known beforehand: perfect, worst, and between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.evidence.explain import agree
from seewhy.evidence.like import delete_patches
from seewhy.explanation.base import Words
from seewhy.explanation.similar import Display, Like, Likeness
from seewhy.explanation.verdict import Missing, Verdict
from seewhy.heads.head import Head
from seewhy.heads.normalise import Normalise
from seewhy.heads.votes import Votes
from seewhy.prototypes.bank import PatchBank
from seewhy.prototypes.measure import Labelled, measure_likeness, trials
from seewhy.prototypes.nearest import NearestPatches
from seewhy.prototypes.voters import measure_removal
from tiny import SIDE, colour_reader

PLACE = (0.25, 0.5, 0.5, 0.75)


@pytest.fixture(scope="module")
def reader() -> Classifier:
    """Its logits are ± (mean red − mean blue); nothing else on a picture counts, and the lead is the logit."""
    return replace(Pretrained().build(colour_reader()), classes=("red", "blue"))


def lit(part: tuple[float, float, float, float]) -> torch.Tensor:
    """Normalised pixels: red 1 in a part of the picture, 0 elsewhere."""
    left, top, right, bottom = (round(v * SIDE) for v in part)
    pixels = torch.zeros(3, SIDE, SIDE)
    pixels[0, top:bottom, left:right] = 1
    return pixels


@pytest.mark.parametrize(
    ("hidden", "fall"),
    [
        (PLACE, 1 / 16),  # all of it
        ((0.25, 0.5, 0.375, 0.75), 1 / 32),  # its left half
        ((0.75, 0.0, 1.0, 0.25), 0.0),  # another place
    ],
)
def test_hiding_places_takes_what_lay_there(
    reader: Classifier, hidden: tuple[float, float, float, float], fall: float
) -> None:
    found = delete_patches(reader, lit(PLACE), [hidden], 0)
    assert found.lead == pytest.approx(1 / 16, abs=1e-6)
    assert found.fall == pytest.approx(fall, abs=1e-6)
    assert found.area == pytest.approx((hidden[2] - hidden[0]) * (hidden[3] - hidden[1]))
    assert delete_patches(reader, lit(PLACE), [hidden], 1).fall == pytest.approx(-fall, abs=1e-6)


def test_hiding_elsewhere_takes_nothing_where_all_is_in_one_place(reader: Classifier) -> None:
    """Every placement lies a quarter of the picture away, which is the place's own side."""
    found = delete_patches(reader, lit(PLACE), [PLACE], 0)
    assert found.falls_random == pytest.approx([0.0] * 8, abs=1e-6)
    even = delete_patches(reader, lit((0, 0, 1, 1)), [PLACE], 0)
    assert even.fall == pytest.approx(1 / 16, abs=1e-6)  # where all places are alike, any takes its area
    assert even.falls_random == pytest.approx([even.fall] * 8, abs=1e-6)


def pictures(colours: str, first: int = 0) -> list[Encoded]:
    """Grey pictures with a red, a blue, or a dark red square, each in a place of its own."""
    shades = {"r": (255, 90, 90), "b": (90, 90, 255), "d": (200, 90, 90)}
    found = []
    for i, colour in enumerate(colours, first):
        pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
        row, column = 4 * (i % 7), 4 * (i // 7 % 7)
        pixels[row : row + 8, column : column + 8] = shades[colour]
        found.append(pixels)
    seen = encode_stream(colour_reader(), found, request=EncodeRequest(features=lambda _i: True, pictures=True))
    return [s for s in seen if isinstance(s, Encoded)]


def nearest(n: int) -> NearestPatches:
    """Pictures here are all near-duplicates, which counts for nothing."""
    return NearestPatches(n_neighbours=n, duplicate=2.0)


def labelled(colours: str) -> list[Labelled]:
    """Of their own class, which the reader decides for."""
    return [Labelled(one, "rb".index(c)) for one, c in zip(pictures(colours, 10), colours, strict=True)]


@pytest.mark.parametrize(
    ("bank", "labels", "precision", "chance"),
    [
        ("rrbb", [0, 0, 1, 1], 1.0, 0.5),  # what is alike is of the class
        ("rrbb", [1, 1, 0, 0], 0.0, 0.5),  # what is alike is of the other class
        ("rrrb", [0, 0, 0, 1], 1.0, 0.5),  # chance is by what the bank holds: ¾ for red, ¼ for blue
    ],
)
def test_likeness_precision_perfect_and_worst(
    reader: Classifier, bank: str, labels: list[int], precision: float, chance: float
) -> None:
    seen = pictures(bank)
    kept = PatchBank.build(reader, seen, labels, per_picture=1)
    found = measure_likeness(reader, nearest(1), kept, labelled("rb"), n_regions=1)
    assert found is not None
    assert (found.precision, found.n) == (precision, 2)
    assert found.chance == pytest.approx(chance)
    assert [tuple(band) for band in found.bands] == [(precision, 2, 2)]
    if precision == 1:
        assert found.near == pytest.approx(1.0, abs=0.01)


def test_likeness_precision_counts_every_neighbour(reader: Classifier) -> None:
    """Two nearest of each region are shown; of the two red pictures one is called blue: one half."""
    kept = PatchBank.build(reader, pictures("rrbb"), [0, 1, 1, 1], per_picture=1)
    found = measure_likeness(reader, nearest(2), kept, labelled("rr"), n_regions=1)
    assert found is not None
    assert found.precision == 0.5
    assert found.chance == pytest.approx(0.25)


def test_a_wrong_class_has_no_neighbours_where_what_is_alike_is_of_the_class(reader: Classifier) -> None:
    kept = PatchBank.build(reader, pictures("rrbb"), [0, 0, 1, 1], per_picture=1)
    (found,) = trials(reader, nearest(1), kept, labelled("r"), 1, n_regions=1)
    assert (found.share, found.right, found.wrong) == (1.0, True, (0.0,))
    (found,) = trials(reader, nearest(1), kept, [labelled("r")[0]._replace(label=1)], 1, n_regions=1)
    assert (found.share, found.right, found.wrong) == (1.0, False, ())  # the other is its own class


@pytest.mark.parametrize(("n_alone", "changed"), [(12, 1.0), (6, 0.5), (3, 0.25), (0, 0.0)])
def test_votes_are_missed_where_one_picture_decided(n_alone: int, changed: float) -> None:
    """One voter, which decides, is taken from each of twelve pictures; some have others of their class, some do not."""
    n = 12
    x = torch.eye(2 * n)
    near, far = x[:n], normalize(x[:n] + 0.8 * x[n:], dim=1)
    farther = normalize(x[:n] + 0.9 * x[n:], dim=1)
    other = (torch.arange(n) < n_alone).long()  # the class of the two farther voters
    owner = torch.cat([torch.zeros(n).long(), other, other])
    names = tuple(str(i) for i in range(3 * n))
    head = Head(Normalise(l2=True), torch.cat([near, far, farther]) / 0.02, votes=Votes(owner, 2, 3, names))
    assert head(near).argmax(1).tolist() == [0] * n
    found = measure_removal(head, near, n_pictures=1)
    assert (found["changed"], found["n"]) == (changed, n)


def like(labels: str) -> Like:
    box = (0, 0, 1, 1)
    verdict = Verdict("believable", "", "")
    return Like("nearest", tuple(Likeness("A", "", c, box, box, 1.0, 1.0) for c in labels), 1.0, None, None, verdict)


def words(decision: str) -> Words:
    return Words("described", (), decision, None, "", "", Verdict("believable", "", ""))


HEAT = torch.arange(16.0).reshape(4, 4)


@pytest.mark.parametrize(
    ("labels", "decision", "spoken", "score"),
    [
        ("aaaa", "a", HEAT, 1.0),
        ("bbbb", "b", -HEAT, 0.0),
        ("aaab", "a", HEAT, (0.75 + 1 + 1) / 3),
        ("aabb", "b", HEAT.T.contiguous(), None),  # the rank correlation of a map with its transpose
        ("aabb", "a", None, (0.5 + 1) / 2),
        ("aabb", "a", torch.ones(4, 4), (0.5 + 1) / 2),  # a flat map orders nothing
    ],
)
def test_agreement_is_the_mean_of_its_parts(
    labels: str, decision: str, spoken: torch.Tensor | None, score: float | None
) -> None:
    if score is None:
        ranks = np.corrcoef(HEAT.flatten().numpy(), HEAT.T.flatten().numpy())[0, 1]  # both are their own ranks
        score = (0.5 + 0 + ranks) / 3
    found = agree("a", HEAT, spoken, like(labels), words(decision), False)
    assert found.score == pytest.approx(score, abs=1e-4)


def test_what_decided_is_no_witness() -> None:
    assert agree("a", HEAT, HEAT, Missing("", ""), words("a"), True).score is None
    assert (
        agree("a", HEAT, HEAT, replace(like("aa"), display=Display(votes=True)), Missing("", ""), False).score is None
    )
