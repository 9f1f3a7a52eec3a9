"""Interpretability maximisation: both terms by hand, concepts that follow their pictures, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, layer_norm, normalize

from seewhy.errors import InputError
from seewhy.learning.objectives.vectors import IIS, CrossEntropy, Layer, Layers

LABELS = torch.tensor([0, 1, 1, 2, 0, 1])
VECTORS = torch.randn(6, 1, 5, generator=torch.Generator().manual_seed(1))


def layers(objective: IIS, n: int = 6) -> Layers:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = objective.state(5, 3, n)
    assert isinstance(found, Layers)
    return found


def test_both_terms_by_hand() -> None:
    objective = IIS(n_concepts=4, sparsity=0.5, weight=0.7)
    state = layers(objective)
    vectors = VECTORS.clone().requires_grad_()
    loss = objective(vectors, LABELS, state=state)
    concepts = normalize(VECTORS[:, 0], dim=1)[state.owner]
    torch.testing.assert_close(state.concepts, concepts)
    scores = layer_norm(VECTORS[:, 0] @ concepts.T, (4,))
    edge = scores.abs().sort(1, descending=True).values[:, 1:2]
    sparse = state.sparse(scores * (scores.abs() >= edge))
    whole = state.whole(VECTORS[:, 0])
    torch.testing.assert_close(loss, cross_entropy(whole, LABELS) + 0.7 * cross_entropy(sparse, LABELS))
    assert float(state.watched["right"]) == float((whole.argmax(1) == LABELS).float().mean())
    assert float(state.watched["few"]) == float((sparse.argmax(1) == LABELS).float().mean())
    loss.backward()
    assert vectors.grad is not None
    assert state.sparse.weight.grad is not None
    assert not state.concepts.requires_grad


def test_a_weight_of_nothing_is_cross_entropy() -> None:
    state = layers(IIS(n_concepts=4, weight=0.0))
    plain = Layer(5, 3)
    plain.layer.load_state_dict(state.whole.state_dict())
    torch.testing.assert_close(
        IIS(n_concepts=4, weight=0.0)(VECTORS, LABELS, state=state), CrossEntropy()(VECTORS, LABELS, state=plain)
    )


def test_concepts_follow_their_own_pictures_alone() -> None:
    objective = IIS(n_concepts=4)
    state = layers(objective, n=20)
    before = state.concepts.clone()
    there = torch.tensor([int(state.owner[2]), 97, 98, 99, int(state.owner[0]), 96])
    objective(VECTORS, LABELS, state=state, index=there)
    unit = normalize(VECTORS[:, 0], dim=1)
    torch.testing.assert_close(state.concepts[[2, 0]], unit[[0, 4]])
    assert torch.equal(state.concepts[[1, 3]], before[[1, 3]])
    again = IIS(n_concepts=4, concepts="random")
    fixed = layers(again)
    before = fixed.concepts.clone()
    again(VECTORS, LABELS, state=fixed)
    assert torch.equal(fixed.concepts, before)


def test_fewer_pictures_than_concepts() -> None:
    assert len(layers(IIS(n_concepts=200), n=6).concepts) == 6
    assert len(layers(IIS(n_concepts=200, concepts="random"), n=6).concepts) == 200


def test_a_sparsity_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"^`sparsity` must be .* got 1\.0\."):
        IIS(sparsity=1.0)
