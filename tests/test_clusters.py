"""k-means against scikit-learn, and its empty and spherical centres."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans

from seewhy.clusters import connected, grouped, k_means, links, lloyd, numbered


def _points(n: int = 300) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0))


def test_lloyd_is_scikit_learns_from_the_same_start() -> None:
    x = _points()
    centres, owner = lloyd(x, x[:5])
    theirs = KMeans(5, init=x[:5].numpy(), n_init=1, algorithm="lloyd", tol=0, max_iter=50).fit(x.numpy())
    np.testing.assert_allclose(centres, theirs.cluster_centers_, atol=1e-5)
    assert owner.tolist() == theirs.labels_.tolist()


def test_rounds_are_limited() -> None:
    x = _points()
    near = torch.cdist(x, x[:5]).argmin(1)
    centres, owner = lloyd(x, x[:5], 1)
    assert torch.equal(owner, near)
    assert torch.allclose(centres, torch.stack([x[near == k].mean(0) for k in range(5)]), atol=1e-6)


def test_a_centre_without_rows_stays() -> None:
    x = torch.tensor([[0.0], [1.0]])
    assert lloyd(x, torch.tensor([[0.5], [9.0]]))[0].tolist() == [[0.5], [9.0]]


def test_a_centre_of_one_row_is_that_row() -> None:
    assert lloyd(torch.tensor([[0.0], [1.0], [8.0]]), torch.tensor([[0.0], [9.0]]))[0].tolist() == [[0.5], [8.0]]


def test_spherical_centres_are_unit_vectors_and_never_zero() -> None:
    x = torch.nn.functional.normalize(_points(), dim=1)
    centres, owner = lloyd(x, x[:3], spherical=True)
    assert torch.allclose(centres.norm(dim=1), torch.ones(3), atol=1e-6)
    assert torch.equal((x @ centres.T).argmax(1), owner)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert lloyd(opposite, torch.tensor([[0.0, 1.0]]), spherical=True)[0].tolist() == [[0.0, 1.0]]


def test_k_means_is_deterministic() -> None:
    first, again = (k_means(_points(), 4, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)


def test_components_join_what_any_numbering_joins() -> None:
    assert links(numbered(["a", "b", "a"])).tolist() == [[0, 0], [1, 1], [0, 2]]
    names, sizes = ["a", "b", "a", "c", "d"], [1, 2, 3, 3, 9]
    joined = connected(5, links(numbered(names)), links(numbered(sizes)))
    assert joined.tolist() == [0, 1, 0, 0, 2]
    assert connected(0, links(numbered([]))).tolist() == []


def test_values_are_grouped_by_their_keys_in_order() -> None:
    assert list(grouped((n % 3, n) for n in (5, 1, 2, 4)).items()) == [(2, [5, 2]), (1, [1, 4])]
    assert grouped([]) == {}
