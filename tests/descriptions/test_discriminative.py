"""Choosing descriptions: the selector on matrices made by hand, against the authors' loop, and the weight of names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from seewhy.classifiers.by_sentences import WEIGHTS, Pool, Selector, best_weight, selection_matrix
from seewhy.descriptions import Descriptions
from seewhy.errors import DataError, InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reproductions"))

from semantics_arms import halves, nearest_mean

M = torch.tensor(
    [
        [0.9, 0.1, 0.5],  # ahead for class 0, by (0 + 0.8 + 0.4) / 3 = 0.4
        [0.6, 0.5, 0.4],  # ahead for class 0, by 0.1
        [0.2, 0.8, 0.9],  # ahead for class 2; for class 1 among 0 and 1 alone
        [0.3, 0.3, 0.3],  # equal everywhere: ahead of nobody, behind nobody
        [0.1, 0.4, 0.2],  # ahead for class 1
    ]
)
OWN = ((4,), (0, 1), (3,))


def test_it_keeps_what_is_ahead_of_every_rival_and_ranks_by_the_mean_lead() -> None:
    found = Selector(m=2)(M, torch.tensor([[0, 1, 2], [1, 0, 2]]), OWN)
    assert found.used.all()
    assert found.texts[0].tolist() == [[0, 1], [4, 3], [2, 3]]
    assert found.texts[1].tolist() == [[4, 3], [0, 1], [2, 3]]


def test_the_choice_depends_on_who_is_in_question() -> None:
    assert Selector(m=1)(M, torch.tensor([[1, 0]]), OWN).texts[0].tolist() == [[2], [0]]
    pair = Selector(m=5)(M, torch.tensor([[1, 2]]), OWN)
    assert pair.texts[0, 0][pair.used[0, 0]].tolist() == [4, 1, 3]
    assert pair.texts[0, 1][pair.used[0, 1]].tolist() == [0, 2, 3]


def test_with_a_margin_few_survive_and_the_own_texts_stand_in() -> None:
    found = Selector(m=2, margin=0.3)(M, torch.tensor([[0, 1, 2]]), OWN)
    assert found.texts[0, 0][found.used[0, 0]].tolist() == [0]
    assert found.texts[0, 1].tolist() == [0, 1]
    assert found.texts[0, 2][found.used[0, 2]].tolist() == [3]


def test_against_the_paper_written_as_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(40, 6, generator=generator)
    among = torch.stack([torch.randperm(6, generator=generator)[:3] for _ in range(10)])
    found = Selector(m=4)(matrix, among, ((0,),) * 6)
    for i, classes in enumerate(among.tolist()):
        for j, a in enumerate(classes):
            leads = {
                p: sum(float(matrix[p, a] - matrix[p, b]) for b in classes) / 3
                for p in range(40)
                if all(matrix[p, a] - matrix[p, b] >= 0 for b in classes)
            }
            best = sorted(leads, key=lambda p: -leads[p])[:4]
            assert found.texts[i, j][found.used[i, j]].tolist() == best


def test_matrix_of_unequal_classes() -> None:
    texts = torch.eye(2)
    pictures = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    found = selection_matrix(texts, pictures, torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.6], [0.5, 0.8]]))
    with pytest.raises(DataError) as caught:
        selection_matrix(texts, pictures, torch.tensor([0, 0, 1]), 3)
    assert str(caught.value) == (
        "Every class must have at least one picture to choose descriptions with, but 1 of 3 "
        "classes have none. Add pictures, or leave those classes out."
    )


def test_the_pool_forgets_whose_a_text_was_and_can_tell() -> None:
    pool = Pool.of(Descriptions({"a": ("red", "round"), "b": ("blue", "red")}))
    assert pool.texts == ("blue", "red", "round")
    assert pool.assigned == ((1, 2), (0, 1))
    assert [pool.written_for(t, 0) for t in range(3)] == [1, None, None]


def test_the_smallest_best_weight() -> None:
    assert WEIGHTS[0] == 0
    assert WEIGHTS[-1] == 39.75
    assert len(WEIGHTS) == 160
    captions, words = torch.tensor([[0.2, 0.1], [0.2, 0.1]]), torch.tensor([[0.0, 0.2], [0.3, 0.0]])
    right = torch.tensor([[True, False], [True, False]])
    weight, curve = best_weight(captions, words, right)
    assert weight == 2.0 or weight == 2.25  # at 2 the scores are equal but for rounding
    assert curve[0] == 0.5
    assert curve[-1] == 1.0
    assert best_weight(captions, words, torch.zeros(2, 2, dtype=torch.bool))[0] == 0


def test_halves_split_every_class() -> None:
    labels = torch.tensor([0] * 4 + [1] * 5 + [2])
    half = halves(labels, 3)
    assert [int(half[labels == k].sum()) for k in range(3)] == [2, 3, 1]
    assert torch.equal(half, halves(labels, 3))
    assert not torch.equal(half, halves(labels, 4))


def test_nearest_mean() -> None:
    pictures = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert nearest_mean(pictures, torch.tensor([1, 0]), torch.tensor([[0.9, 0.1]]), 2).tolist() == [1]


def test_the_nearest_mean_is_told_by_its_direction_not_by_its_length_or_how_many_made_it() -> None:
    # Class 0: three times the same; class 1: two at right angles, whose mean is shorter.
    pictures = torch.tensor([[1.0, 0.0]] * 3 + [[1.0, 0.0], [0.0, 1.0]])
    labels, asked = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([[0.8, 0.6]])
    # Cosines 0.8 and 0.99; products with the means 0.8 and 0.7, with the sums 2.4 and 1.4.
    assert nearest_mean(pictures, labels, asked, 2).tolist() == [1]


def test_a_selector_of_nothing_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        Selector(m=0)
    assert (
        str(caught.value) == "`m` of the selector must be a whole number of at least 1, got 0. Leave it out to use 5."
    )
