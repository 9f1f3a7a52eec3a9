"""Words beside wrong ones: exact figures where pictures and sentences are the axes of a space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from seewhy.classifiers.base import Classifier, HeldOut
from seewhy.classifiers.unfitted import Described
from seewhy.classifiers.words import WordsMeasure
from seewhy.descriptions import Descriptions
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.evidence.words import show_words
from seewhy.explanation.base import Words
from seewhy.explanation.kinds import WordControl
from seewhy.explanation.verdict import Verdict
from tiny import Channels, HashedWords, build

AXES = torch.eye(8)


@cache
def encoder() -> Encoder:
    """Sentences ``axis 0`` … lie along the axes, ``all 0`` … near the last one."""
    near_all = {f"all {i}": AXES[7] + 0.3 * AXES[i] for i in range(7)}
    planted = {f"axis {i}": AXES[i] for i in range(8)} | near_all
    return build(Channels(), GlobalAverage(), Layout(), 8, text=HashedWords(8, planted))


def pooled(axes: Sequence[int], beside: float = 0.0) -> Tensor:
    """Pictures along these axes, and so much along the last."""
    return ((AXES[list(axes)] + beside * AXES[7]) - encoder().text.shift) / 2  # type: ignore[attr-defined]


def described(lists: Sequence[str], pictures: Sequence[int] | None = None, beside: float = 0.0) -> Classifier:
    """Class i is written ``lists[i]``; of each class in ``pictures``, or of all, two pictures lie along its axis."""
    made = Described(with_names=False).build(encoder(), Descriptions({f"c{i}": (t,) for i, t in enumerate(lists)}))
    labels = torch.tensor(range(len(lists)) if pictures is None else pictures).repeat(2)
    return replace(made, held_out=HeldOut(pooled(labels.tolist(), beside), labels), words_accuracy=1.0)


def measured(model: Classifier) -> WordsMeasure:
    found = model.measured_words
    assert found is not None
    return found


def shown(model: Classifier, row: Tensor, label: int, other: int) -> Words:
    words = show_words(model, row, label, other)
    assert isinstance(words, Words)
    return words


@pytest.mark.parametrize(
    ("axes", "as_good"),
    [
        ((0, 1, 2, 3, 4), 1 / 120),  # only the true order
        ((1, 0, 2, 3, 4, 5), 16 / 720),  # orders with at least four of six in place
        ((1, 2, 3, 4, 0), 1.0),  # none in place
        ((0, 0, 0, 0, 0), 1.0),  # one list for all
    ],
)
def test_wrong_orders_are_counted(axes: Sequence[int], as_good: float) -> None:
    assert measured(described([f"axis {i}" for i in axes])).as_good == pytest.approx(as_good)


def test_many_orders_are_drawn_the_same_every_time() -> None:
    lists = [f"axis {i}" for i in range(7)]
    found = measured(described(lists))
    assert 0.001 <= found.as_good <= 0.002
    assert found.as_good == measured(described(lists)).as_good
    assert found.foreign is None


def test_few_classes_stand_beside_sentences_about_other_things() -> None:
    found = measured(described(["axis 0", "axis 1", "axis 2"]))
    assert found.as_good == pytest.approx(0.001), "no draw of three strange sentences is as near as the axes"
    assert found.foreign is not None
    assert found.foreign.lists.shape == (3, 48, 8)
    assert len(found.foreign.lists[0].unique(dim=0)) == 48
    assert found.beats.tolist() == [1, 1, 1]
    wrong = measured(described(["axis 1", "axis 0", "axis 2"]))
    assert wrong.as_good == pytest.approx(4 / 6), "four of six orders have a list in place"
    strange = measured(described(["mere noise", "more of it", "and more"]))
    assert strange.as_good > 0.01


def test_strange_lists_are_as_long_as_the_words() -> None:
    words = Descriptions({"a": ("axis 0", "axis 3"), "b": ("axis 1",)})
    model = replace(
        Described(with_names=False).build(encoder(), words),
        held_out=HeldOut(pooled([0, 1]), torch.tensor([0, 1])),
    )
    foreign = measured(model).foreign
    assert foreign is not None
    assert (foreign.lists[0].norm(dim=1) < 0.999).sum() > 40, "means of two sentences are shorter than one"
    assert torch.allclose(foreign.lists[1].norm(dim=1), torch.ones(48))


def test_strange_sentences_are_encoded_once() -> None:
    words = encoder().text
    assert isinstance(words, HashedWords)
    measured(described(["axis 0", "axis 1"]))
    before = words.n_encoded
    first = described(["axis 0", "axis 1", "axis 2"])
    assert words.n_encoded == before + 3
    measured(first)
    assert words.n_encoded == before + 3


def test_a_sentence_near_every_picture_gains_nothing() -> None:
    lists = ["axis 0", "all 1", "axis 2", "axis 3", "axis 4"]
    model = described(lists, beside=2.0)
    joint = normalize(AXES[0] + 2 * AXES[7], dim=0)
    cosines = model.words.measured.class_weight() @ joint  # type: ignore[union-attr]
    assert int(cosines.argmax()) == 1
    found = measured(model)
    assert found.of(0, joint, cosines) == WordControl(pytest.approx(1 / 120), 1.0, 1.0)  # type: ignore[arg-type]
    assert found.of(2, joint, cosines).picture_beats < 0.95


def test_the_strange_lists_are_set_against_the_picture_too() -> None:
    model = described(["axis 0", "axis 1"])
    weight = model.words.measured.class_weight()  # type: ignore[union-attr]
    for joint, beaten in ((AXES[0], True), (normalize(AXES[5] + 0.2 * AXES[0], dim=0), False)):
        cosines = weight @ joint
        assert cosines[0] > cosines[1]
        assert (measured(model).of(0, joint, cosines).picture_beats >= 0.95) == beaten, "strangers are nearer to axis 5"


def test_a_class_without_pictures_is_not_measured() -> None:
    model = described([f"axis {i}" for i in range(6)], pictures=range(5))
    assert shown(model, pooled([0])[0], 0, 1).verdict.level == "believable"
    alone = shown(model, pooled([5])[0], 5, 1)
    assert alone.verdict.level == "not measured"
    assert "on this picture; this class has no held-out pictures (95 % is needed)" in alone.verdict.figures
    assert described(["axis 0", "axis 1"], pictures=[0]).measured_words is None


def judged(control: WordControl, *, accuracy: float = 1.0, label: int = 0, decides: bool = False) -> Verdict:
    """The verdict where the controls say so; on a picture along axis 0."""
    model = replace(
        described([f"axis {i}" for i in range(6)]),
        words_accuracy=accuracy,
        decided_by_words=decides,
        words_accuracy_on="12",
    )
    value = float("nan") if control.class_beats is None else control.class_beats
    own = torch.full((6,), value, dtype=torch.float64)
    fit = torch.zeros(6)
    if control.picture_beats < 1:
        fit[label] = 9.0  # its list is near all pictures, so that it fits this one less well than any other
    model.__dict__["measured_words"] = WordsMeasure(control.as_good, own, fit, None)
    return shown(model, pooled([0])[0], label, 3).verdict


@pytest.mark.parametrize(
    ("control", "level"),
    [
        (WordControl(0.01, 0.95, 1.0), "believable"),
        (WordControl(0.011, 1.0, 1.0), "do not rely"),
        (WordControl(0.001, 0.949, 1.0), "do not rely"),
        (WordControl(0.001, 1.0, 0.0), "do not rely"),
        (WordControl(0.001, None, 1.0), "not measured"),
        (WordControl(0.5, None, 1.0), "do not rely"),
    ],
)
def test_each_control_must_be_passed(control: WordControl, level: str) -> None:
    assert judged(control).level == level


def test_right_half_of_the_time_is_believable_and_a_quarter_is_asked_of_words_that_decide() -> None:
    passed = WordControl(0.001, 1.0, 1.0)
    assert [judged(passed, accuracy=a).level for a in (0.5, 0.49, 0.1)] == ["believable", "partly", "partly"]
    levels = [judged(passed, accuracy=a, decides=True).level for a in (0.5, 0.25, 0.24)]
    assert levels == ["believable", "partly", "do not rely"]


def test_figures_are_said_and_rounded_down() -> None:
    verdict = judged(WordControl(0.001, 0.949, 1.0))
    assert verdict.sentence == "Descriptions of other classes fit your pictures equally well."
    assert verdict.figures == (
        "The descriptions of c0 fit better than 100 % of wrong ones on this picture and 94 % on held-out ones (95 % is "
        "needed). Assigned to wrong classes, descriptions fit equally well in 0.1 % of cases (1 % is allowed). They "
        "distinguish "
        "c0 from c3 with an area under the ROC curve of 1.00. The descriptions alone also "
        "choose c0. They are right on 100 % of 12."
    )
