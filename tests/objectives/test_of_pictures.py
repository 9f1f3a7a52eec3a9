"""Objectives over views of pictures: SupContrast's numbers, brute force over all pairs, and what a queue holds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from registered import small
from seewhy.errors import InputError
from seewhy.learning.objectives import objectives, pictures
from seewhy.learning.objectives.pictures import Queue, Vectors, log_sums, nearest, own_places
from seewhy.learning.objectives.vectors import (
    LOOK,
    CrossEntropy,
    Layer,
    Neighbours,
    SimCLR,
    SupCon,
    against_store,
    soft_votes,
    votes,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "supcon.json").read_text("utf-8"))
VECTORS = [name for name in objectives if issubclass(objectives[name], Vectors)]
LABELS = torch.tensor([0, 1, 1, 2, 0, 1])


def views(n: int = 6, v: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(n, v, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=lambda r: f"{r['labels'] is not None}, {r['temperature']}")
def test_against_supcontrast(row: dict[str, Any]) -> None:
    vectors = torch.tensor(GOLDEN["vectors"], dtype=torch.float64).requires_grad_()
    if row["labels"] is None:
        loss = SimCLR(row["temperature"])(vectors) * row["temperature"] / row["base_temperature"]
    else:
        loss = SupCon(row["temperature"], row["base_temperature"])(vectors, torch.tensor(row["labels"]))
    loss.backward()
    assert loss.item() == pytest.approx(row["loss"], rel=GOLDEN["tolerance"])
    assert vectors.grad is not None
    assert vectors.grad.flatten().tolist() == pytest.approx(row["gradient"], abs=GOLDEN["tolerance"])


@pytest.mark.parametrize("name", VECTORS)
def test_a_batch_that_nothing_can_be_told_from_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} needs .* got vectors of shape \(1, 1, 3\) and 1 labels\."):
        small(objectives, name)(torch.ones(1, 1, 3), torch.tensor([0]))
    if objectives[name].needs_labels:  # type: ignore[attr-defined]
        with pytest.raises(InputError, match=rf"^{name} needs .* got vectors of shape \(2, 2, 3\) and no labels\."):
            small(objectives, name)(torch.ones(2, 2, 3))


@pytest.mark.parametrize("name", VECTORS)
def test_order_changes_nothing_and_a_step_down_makes_it_smaller(name: str) -> None:
    objective, order = small(objectives, name), torch.tensor([3, 5, 0, 1, 4, 2])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = objective.state(5, 3, 6).requires_grad_(False)
    vectors = views().requires_grad_()
    loss = objective(vectors, LABELS, state=state)
    (slope,) = torch.autograd.grad(loss, vectors)
    assert slope.isfinite().all()
    fixed = vectors.detach()
    again = state if not isinstance(state, Queue) else objective.state(5, 3, 6)
    permuted = objective(fixed[order], LABELS[order], state=again, index=order)
    assert float(permuted) == pytest.approx(loss.item(), rel=1e-5)
    again = state if not isinstance(state, Queue) else objective.state(5, 3, 6)
    slow = fixed[:, -1:] if objective.slow_views else None
    nearer = objective(fixed - 1e-2 * slope / slope.norm(), LABELS, state=again, slow=slow)
    assert float(nearer) < loss.item()


def world(n: int = 300, b: int = 7) -> tuple[Tensor, ...]:
    """Queries with classes and numbers, and a store in which each number stands twice."""
    draw = torch.Generator().manual_seed(3)
    store, query = (normalize(torch.randn(m, 6, generator=draw), dim=1) for m in (n, b))
    classes, labels = (torch.randint(0, 4, (m,), generator=draw) for m in (n, b))
    return query, labels, torch.arange(b) * 5, store, classes, torch.arange(n) % (n // 2)


def brute(query: Tensor, labels: Tensor, index: Tensor, store: Tensor, classes: Tensor, of: Tensor, k: int) -> Tensor:
    """The votes, one query after another."""
    found = []
    for i in range(len(query)):
        kept = (of != index[i]).nonzero()[:, 0]
        cosines = store[kept] @ query[i]
        near = cosines.argsort(descending=True)[:k]
        weights = (cosines[near] / 0.1).exp()
        found.append((weights * (classes[kept][near] == labels[i])).sum() / weights.sum())
    return torch.stack(found)


@pytest.mark.parametrize("block", [64, 37, 8192])
@pytest.mark.parametrize("k", [1, 2, 15, 120])
def test_votes_are_those_of_brute_force(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BLOCK", block)
    query, labels, index, store, classes, of = world()
    one, two = query.clone().requires_grad_(), query.clone().requires_grad_()
    ours, n = votes(one, labels, store, classes, k, 0.1, own_places(index, of))
    theirs = brute(two, labels, index, store, classes, of, k)
    torch.testing.assert_close(ours, theirs)
    slopes = [torch.autograd.grad((p + 1e-2).log().sum(), x)[0] for p, x in ((ours, one), (theirs, two))]
    torch.testing.assert_close(*slopes, atol=1e-4, rtol=1e-4)
    assert (n >= 1 - 1e-5).all()
    assert (n <= k + 1e-3).all()


def test_all_of_the_store_vote_as_by_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BLOCK", 64)
    query, labels, index, store, classes, of = world()
    one, two = query.clone().requires_grad_(), query.clone().requires_grad_()
    ours = soft_votes(one, labels, store, classes, 0.1, own_places(index, of))
    theirs = brute(two, labels, index, store, classes, of, 300)
    torch.testing.assert_close(ours, theirs)
    slopes = [torch.autograd.grad((p + 1e-2).log().sum(), x)[0] for p, x in ((ours, one), (theirs, two))]
    torch.testing.assert_close(*slopes, atol=1e-4, rtol=1e-4)
    nobody = soft_votes(query, torch.full((7,), 9), store, classes, 0.1, own_places(index, of))
    assert nobody.tolist() == [0.0] * 7


def test_the_loss_over_a_store_is_the_sum_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BLOCK", 64)
    query, labels, _, store, classes, _ = world()
    labels = labels.clone()
    labels[0] = 8  # of a class that the store has not
    one, two = query.clone().requires_grad_(), query.clone().requires_grad_()
    ours = against_store(one, labels, store, classes, 0.07)
    chance = (two @ store.T / 0.07).log_softmax(1)
    right = classes == labels[:, None]
    theirs = -((chance * right).sum(1) / right.sum(1).clamp(min=1)).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    slopes = [torch.autograd.grad(loss, x)[0] for loss, x in ((ours, one), (theirs, two))]
    torch.testing.assert_close(*slopes, atol=1e-5, rtol=1e-4)


def test_sums_do_not_overflow_at_low_temperatures() -> None:
    query, _, _, store, _, _ = world()
    (whole,) = log_sums(query, store, 1e4)
    torch.testing.assert_close(whole, (query.double() @ store.double().T * 1e4).logsumexp(1).float(), rtol=1e-4, atol=1)


def test_where_nothing_counts_nothing_is_near() -> None:
    everything = own_places(torch.tensor([0]), torch.zeros(4, dtype=torch.long))
    near, _ = nearest(torch.ones(1, 3), torch.ones(4, 3), 2, everything)
    assert near.tolist() == [[-math.inf, -math.inf]]
    labels, store_classes = torch.tensor([0, 0]), torch.zeros(4, dtype=torch.long)
    chance, n = votes(torch.ones(1, 3), labels[:1], torch.ones(4, 3), store_classes, 2, 0.1, everything, own_class=True)
    assert (chance.item(), n.item()) == (0.0, 1.0)


def test_a_queue_forgets_the_oldest_and_copies_of_a_picture_never_count() -> None:
    held = Queue(4, 1)
    held.add(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1, 2, 3]), torch.tensor([10, 20, 30]))
    assert [one.tolist() for one in held.held()] == [[[1.0], [2.0], [3.0]], [1, 2, 3], [10, 20, 30]]
    held.add(torch.tensor([[4.0], [5.0]]), torch.tensor([4, 5]), torch.tensor([40, 50]))
    assert held.held()[1].tolist() == [5, 2, 3, 4]
    held.add(torch.arange(6.0)[:, None], torch.arange(6), torch.arange(6))  # more than it holds: the last ones stay
    assert sorted(held.held()[1].tolist()) == [2, 3, 4, 5]
    state = Neighbours(8, 2, None)
    up, right = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    state.add(torch.cat([up, right]), torch.tensor([0, 1]), torch.tensor([7, 8]))  # 7 as it was, and another class
    found = LOOK(k=1, cold="none", eps=0.5)(
        torch.stack([up, -right]), torch.tensor([0, 1]), state=state, index=torch.tensor([7, 9])
    )
    # Of 7 the old and the new vector are left out: its nearest is one of the others, of class 1.
    assert found.item() == pytest.approx(-(math.log(0.5) + math.log(0.5)) / 2, rel=1e-4)
    assert state.watched["own_class"].item() == 0.0


def test_what_helps_at_the_start() -> None:
    vectors, labels = torch.eye(6)[:, None], torch.tensor([0, 0, 1, 1, 2, 2])
    close = normalize(vectors + 0.5 * vectors.roll(1, 0), dim=2)
    chance = {}
    for cold in ("none", "own_class", "wide"):
        objective = LOOK(k=1, cold=cold, temperature=1.0)  # type: ignore[arg-type]
        state = objective.state(6, 3, 6, n_steps=10)
        objective(close, labels, state=state)
        chance[cold] = state.watched["own_class"].item()
    assert chance["none"] < chance["own_class"]
    objective = LOOK(k=2, cold="wide")
    assert [objective._k(step, 4, 32) for step in range(6)] == [32, 16, 8, 4, 2, 2]
    assert [LOOK(cold=c).state(6, 3, 6, n_steps=50).cold_steps for c in ("wide", "none")] == [20, 0]  # type: ignore[arg-type, attr-defined]
    state, told = objective.state(6, 3, 6, n_steps=5), []
    for _ in range(3):
        objective(close, labels, state=state)
        told.append(state.watched["neighbours"].item())  # of all of the store at first, as at every step
        state.after_step()
    assert told[0] == 6.0
    assert told[2] <= 2.0
    warm = LOOK(k=1, cold="warm_up", cold_part=0.1)
    state = warm.state(6, 3, 6, n_steps=10)
    assert isinstance(state, Neighbours)
    assert state.layer is not None
    expected = cross_entropy(state.layer(close[:, 0]), labels)
    assert warm(close, labels, state=state).item() == pytest.approx(expected.item(), rel=1e-5)
    state.after_step()
    after = LOOK(k=1, cold="none")(close, labels, state=LOOK(cold="none").state(6, 3, 6))
    again = warm.state(6, 3, 6, n_steps=10)
    again.after_step()
    assert warm(close, labels, state=again).item() == pytest.approx(after.item(), rel=1e-5)


def test_one_class_of_near_vectors_costs_nothing_and_no_neighbour_of_ones_class_costs_eps() -> None:
    assert LOOK(k=2, eps=0.0)(torch.ones(4, 1, 3), torch.zeros(4, dtype=torch.long)).item() == pytest.approx(0.0)
    halves = LOOK(k=2, eps=0.5)(torch.ones(3, 1, 3), torch.tensor([0, 0, 1]))  # half, half and none
    assert halves.item() == pytest.approx(-math.log(0.5) / 3, rel=1e-4)
    alone = LOOK(k=2, eps=1e-3)(torch.ones(3, 1, 3), torch.tensor([0, 1, 2]))
    assert alone.item() == pytest.approx(-math.log(1e-3), rel=1e-5)


def test_supcon_over_a_queue_finds_its_other_view_and_waits_for_no_class() -> None:
    objective = SupCon(n_store=8, temperature=0.5)
    state = objective.state(5, 3, 100)
    vectors = views()
    loss = objective(vectors, LABELS, state=state, slow=vectors[:, 1:])
    query, keys = normalize(vectors[:, 0], dim=1), normalize(vectors[:, 1], dim=1)
    chance, right = (query @ keys.T / 0.5).log_softmax(1), LABELS[:, None] == LABELS
    assert loss.item() == pytest.approx(-((chance * right).sum(1) / right.sum(1)).mean().item(), rel=1e-5)
    assert (objective.slow_views, SupCon().slow_views) == (1, 0)


def test_half_of_the_digits_are_counted_in_single_precision() -> None:
    vectors = views()
    plain = SupCon()(vectors, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(SupCon()(vectors, LABELS), plain)
    halved = SupCon()(vectors.bfloat16(), LABELS)
    assert halved.dtype == torch.float32
    assert torch.equal(halved, SupCon()(vectors.bfloat16().float(), LABELS))
    queued = SupCon(n_store=8)
    assert torch.equal(queued(vectors, LABELS), queued(vectors, LABELS, slow=vectors[:, 1:]))


def test_cross_entropy_is_torchs() -> None:
    with torch.random.fork_rng():
        layer = Layer(5, 3)
    vectors = views()
    scores = layer.layer(vectors.flatten(0, 1))
    expected = cross_entropy(scores, LABELS.repeat_interleave(2), label_smoothing=0.1)
    assert CrossEntropy(0.1)(vectors, LABELS, state=layer).item() == pytest.approx(expected.item(), rel=1e-6)
    assert 0 <= layer.watched["right"].item() <= 1
