"""Few concepts of each picture: counts, the authors' numbers, gradients, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from seewhy.errors import InputError
from seewhy.heads.sparse_concepts import SPARSITIES, concept_scores, n_kept, sparsify

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "iis.json").read_text("utf-8"))
BIG = torch.sin(torch.arange(600).double() * 0.7).reshape(3, 200)
SMALL = torch.sin(torch.arange(36).double() * 1.3).reshape(3, 12)


def test_the_authors_mask_is_theirs() -> None:
    for s, counts, sums in zip(GOLDEN["sparsities"], GOLDEN["n_kept"], GOLDEN["sums"], strict=True):
        found = sparsify(BIG, s, "authors")
        assert (found != 0).sum(1).tolist() == counts
        assert found.sum(1).tolist() == pytest.approx(sums, abs=GOLDEN["tolerance"])
        assert n_kept(200, s, "authors") == counts[0]
    for s, rows in GOLDEN["small"].items():
        assert sparsify(SMALL, float(s), "authors").tolist() == rows


def test_ours_keeps_one_more_and_the_rest_as_they_are() -> None:
    for s in SPARSITIES:
        ours, theirs = sparsify(BIG[1:], s), sparsify(BIG[1:], s, "authors")  # the first value of all is 0
        assert ((ours != 0).sum(1) == (theirs != 0).sum(1) + 1).all()
        assert (ours[theirs != 0] == BIG[1:][theirs != 0]).all()
        assert (ours[ours != 0].abs().min()) <= theirs[theirs != 0].abs().min()
    assert torch.equal(sparsify(BIG, 0.0), BIG)
    assert n_kept(100, 0.29) == 71  # 0.29 · 100 is below 29 as a floating-point number


def test_equal_values_are_kept_in_their_number() -> None:
    assert (sparsify(torch.ones(2, 300), 0.5) != 0).sum(1).tolist() == [150, 150]
    assert bool((sparsify(torch.ones(1, 300), 0.5)[0, :150] != 0).all())  # those that come first


def test_soft_values_and_gradients() -> None:
    scores = torch.tensor([[4.0, -3.0, 2.0, 1.0]], requires_grad=True)
    assert sparsify(scores, 0.5, "soft").tolist() == [[8.0, -3.0, 0.0, 0.0]]
    assert sparsify(scores, 0.0, "soft").tolist() == [[16.0, -9.0, 4.0, 1.0]]
    sparsify(scores, 0.5).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_scores_take_concepts_at_unit_length_and_features_as_they_are() -> None:
    pooled, concepts = torch.tensor([[2.0, 0.0], [4.0, 0.0]]), torch.tensor([[10.0, 0.0], [0.0, 3.0]])
    assert concept_scores(pooled, concepts, over_concepts=False).tolist() == [[2.0, 0.0], [4.0, 0.0]]
    torch.testing.assert_close(concept_scores(pooled, concepts), torch.tensor([[1.0, -1.0]] * 2), atol=1e-4, rtol=0)


def test_what_keeps_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"^sparsity=0\.98 removes all 20 concepts\."):
        sparsify(torch.ones(1, 20), 0.98, "authors")
    for s in (-0.1, 1.0):
        with pytest.raises(InputError, match=rf"^`sparsity` must be at least 0 and less than 1, got {s}\."):
            n_kept(20, s)
    with pytest.raises(InputError, match="got 'sharp'"):
        n_kept(20, 0.5, "sharp")  # type: ignore[arg-type]
