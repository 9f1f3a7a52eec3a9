"""Words of a whole batch in one product: the same as picture by picture, and as the definition."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from seewhy.attributions.shares import strongest_cells
from seewhy.classifiers.base import Classifier
from seewhy.descriptions.base import WordBank
from seewhy.evidence.explain import runner_up
from seewhy.evidence.words import show_words, word_scores, words_heat
from seewhy.heads.head import Head, Projected
from tiny_words import tiny_pair

CLASSES = ("wren", "house sparrow", "blue tit")
OWNERS = {"one each": [0, 1, 2], "one each, turned": [2, 0, 1], "several": [0, 0, 1, 2, 2, 2], "none": [0, 2, 2]}


def bank(owner: list[int], nameless: bool = False) -> WordBank:
    torch.manual_seed(len(owner))
    vectors, others = (normalize(torch.randn(len(owner), 8), dim=1) for _ in range(2))
    texts = tuple(f"text {i}" for i in range(len(owner)))
    return WordBank(CLASSES, texts, torch.tensor(owner), vectors, others if nameless else None)


@pytest.mark.parametrize("owner", OWNERS.values(), ids=OWNERS)
@pytest.mark.parametrize("nameless", [False, True])
def test_class_weight_is_the_mean_over_a_class(owner: list[int], nameless: bool) -> None:
    words = bank(owner, nameless)
    for found in (words, words.measured):
        for c in range(3):
            own = [i for i, o in enumerate(owner) if o == c]
            wanted = found.vectors[own].mean(0) if own else torch.zeros(8)
            torch.testing.assert_close(found.class_weight()[c], wanted)
            assert found.of(c) == own
    assert torch.equal(words.measured.vectors, words.vectors if words.nameless is None else words.nameless)


@pytest.mark.parametrize("owner", [OWNERS["one each"], OWNERS["several"]])
@pytest.mark.parametrize("nameless", [False, True])
def test_a_batch_is_its_pictures_one_by_one(owner: list[int], nameless: bool) -> None:
    encoder, words = tiny_pair(), bank(owner, nameless)
    joint = Projected(encoder.text)
    classifier = Classifier("described", {}, encoder, CLASSES, Head(joint, words.class_weight()), words=words)
    look = encoder.encode(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    predicted, rivals = [0, 1, 2, 1], [1, 2, 2, 0]
    scored = word_scores(classifier, look.pooled)
    spoken = words_heat(classifier, look.features, look.pooled, predicted, rivals)
    assert scored is not None
    assert spoken is not None
    x = joint(look.pooled)
    weight = torch.stack([words.vectors[words.of(c)].mean(0) for c in range(3)])
    measured = words.vectors if words.nameless is None else words.nameless
    torch.testing.assert_close(scored.texts, x @ words.vectors.T)
    torch.testing.assert_close(scored.classes, x @ weight.T)
    torch.testing.assert_close(scored.measured, x @ torch.stack([measured[words.of(c)].mean(0) for c in range(3)]).T)
    for i, (one, other) in enumerate(zip(predicted, rivals, strict=True)):
        pooled = look.pooled[i]
        alone = words_heat(classifier, look.features[i : i + 1], pooled[None], [one], [other])
        assert alone is not None
        torch.testing.assert_close(spoken[i], alone[0])
        rows = weight[one] - (weight[other] if one != other else 0)
        slope = joint.slope(pooled[None], rows[None])[0]
        torch.testing.assert_close(spoken[i], torch.einsum("c,chw->hw", slope, look.features[i]))
        ours, theirs = (show_words(classifier, pooled, one, other, s) for s in (scored[i], None))
        assert [(w.text, w.label) for w in ours.words] == [(w.text, w.label) for w in theirs.words]
        assert (ours.decision, ours.would_change, ours.verdict) == (
            theirs.decision,
            theirs.would_change,
            theirs.verdict,
        )
        assert [w.score for w in ours.words] == pytest.approx([w.score for w in theirs.words], abs=1e-6)


def test_without_words_there_are_no_scores() -> None:
    encoder = tiny_pair()
    classifier = Classifier("linear", {}, encoder, CLASSES, Head(Projected(encoder.text), torch.randn(3, 8)))
    assert word_scores(classifier, torch.randn(2, 8)) is None


def test_runner_up() -> None:
    assert runner_up(torch.tensor([0.2, 0.5, 0.3]), 1) == 2
    assert runner_up(torch.tensor([0.2, 0.5, 0.3]), 0) == 1
    assert runner_up(torch.tensor([1.0]), 0) == 0


@pytest.mark.parametrize("seed", range(5))
def test_strongest_cells_fall_and_stand_apart(seed: int) -> None:
    """Beside the definition, cell by cell; of equal ones the first in reading order."""
    share = torch.randint(0, 4, (5, 6), generator=torch.Generator().manual_seed(seed)) / 20
    order = sorted((-float(share[r, c]), r, c) for r in range(5) for c in range(6))
    wanted: list[tuple[int, int]] = []
    for value, r, c in order:
        if value < 0 and len(wanted) < 3 and all(max(abs(r - a), abs(c - b)) >= 2 for a, b in wanted):
            wanted.append((r, c))
    assert strongest_cells(share, 3) == wanted
