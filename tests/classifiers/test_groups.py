"""Pictures of the same thing stay on one side."""

from __future__ import annotations

import torch

from seewhy.classifiers.groups import (
    group_by_copies,
    group_by_looks,
    group_by_names,
    group_folds,
    hold_out_groups,
)


def planted(n_classes: int, n_things: int, n_shots: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Features, classes and things: each thing near its class, each shot near its thing."""
    g = torch.Generator().manual_seed(seed)
    classes = torch.rand(n_classes, 1, 1, 64, generator=g) * 4
    things = classes + torch.randn(n_classes, n_things, 1, 64, generator=g)
    shots = (things + noise * torch.randn(n_classes, n_things, n_shots, 64, generator=g)).clamp(min=0)
    labels = torch.arange(n_classes).repeat_interleave(n_things * n_shots)
    thing = torch.arange(n_classes * n_things).repeat_interleave(n_shots)
    return shots.flatten(0, 2), labels, thing


def names(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def test_shots_of_planted_things_are_found() -> None:
    pooled, labels, thing = planted(5, 8, 4, 0.2)
    found = group_by_looks(pooled, labels, names(len(labels))).groups
    together, truth = found[:, None] == found[None], thing[:, None] == thing[None]
    assert float(together[truth].float().mean()) > 0.95
    assert float(truth[together].float().mean()) > 0.8


def test_where_every_picture_is_its_own_nearly_none_are_joined() -> None:
    pooled, labels, _ = planted(5, 32, 1, 0.2)
    assert len(group_by_looks(pooled, labels, names(len(labels))).groups.unique()) > 0.85 * len(labels)


def test_copies_and_names_join() -> None:
    assert group_by_copies(["a", "b", "a"]).groups.tolist() == [0, 1, 0]
    assert group_by_names(["x", "y", "z", "y"], ["a", "a", "b", "c"]).groups.tolist() == [0, 0, 1, 0]


def test_folds_keep_groups_whole_and_classes_spread() -> None:
    _, labels, thing = planted(5, 8, 4, 0.2)
    fold = group_folds(labels, thing, 4, seed=0)
    for group in thing.unique():
        assert len(fold[thing == group].unique()) == 1
    for k in labels.unique():
        assert fold[labels == k].bincount(minlength=4).tolist() == [8] * 4


def test_a_class_of_one_thing_is_never_held_out() -> None:
    labels, groups = torch.tensor([0] * 6 + [1] * 6), torch.tensor([0] * 6 + [1, 1, 2, 2, 3, 3])
    assert group_folds(labels, groups, 5, seed=0).tolist()[:6] == [-1] * 6
    assert not hold_out_groups(labels, groups, 0.2, seed=0)[:6].any()
    assert int(hold_out_groups(labels, groups, 0.2, seed=0)[6:].sum()) == 2
