"""Pictures of the same thing stay on one side."""

from __future__ import annotations

import random
import signal

import pytest
import torch

from seewhy.classifiers.certainty import held_out_lines, weak_classes
from seewhy.classifiers.encoded_set import HoldOut, hold_out
from seewhy.classifiers.linear.recipe import Linear, Rows
from seewhy.encoders.stream import Encoded
from seewhy.pictures.samples import Sample
from seewhy.progress import Progress
from seewhy.trust.groups import (
    Individuality,
    average_linkage,
    group_by_looks,
    group_folds,
    hold_out_groups,
    one_thing,
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


@pytest.mark.parametrize("n_things", [2, 3, 5])
def test_few_things_of_a_class_are_told_apart(n_things: int) -> None:
    """Whitened by themselves, a few things are as common as any direction, and are lost."""
    pooled, labels, thing = planted(8, n_things, 6, 0.3, seed=n_things)
    found = group_by_looks(pooled, labels, names(len(labels))).groups
    together, truth = found[:, None] == found[None], thing[:, None] == thing[None]
    assert float(together[truth].float().mean()) > 0.9
    assert float(truth[together].float().mean()) > 0.9


@pytest.mark.parametrize("shots", [4, 12])
def test_a_class_left_out_of_the_whitening_is_left_out(shots: int) -> None:
    """The quick forms of the inverse, with fewer pictures than features and with more, are the slow one."""
    pooled, labels, _ = planted(4, 3, shots, 0.3)
    one = Individuality(pooled, labels)
    mine = (labels == 1).nonzero()[:, 0]
    n, d = one.rest.shape
    assert (one.products is None) == (n >= d)
    within = one.rest.T @ one.rest / n
    rest, ridge = one.rest[mine], within.trace() / d * torch.eye(d, dtype=torch.double)
    product = rest @ torch.linalg.inv(within + ridge - rest.T @ rest / n) @ rest.T
    length = product.diag().sqrt()
    torch.testing.assert_close(one.cosines(mine), product / length / length[:, None])


@pytest.mark.parametrize("of", [40, 200])
def test_cosines_of_some_pictures_are_those_among_all(of: int) -> None:
    """With fewer pictures than features, and with more."""
    pooled, labels, _ = planted(4, 10, 10, 0.3)
    one, mine, some = Individuality(pooled, labels), torch.arange(of), torch.tensor([3, 5, 38, 7])
    torch.testing.assert_close(one.cosines(mine, some), one.cosines(mine)[some][:, some])


def test_each_pair_of_classes_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pooled, labels, _ = planted(3, 110, 3, 0.3)
    one, asked, cosines = Individuality(pooled, labels), [], Individuality.cosines

    def counted(self: Individuality, of: torch.Tensor, some: torch.Tensor) -> torch.Tensor:
        asked.append((of, some))
        return cosines(self, of, some)

    monkeypatch.setattr(Individuality, "cosines", counted)
    between = []
    draw = random.Random(0)
    for a, b in (draw.sample(range(3), 2) for _ in range(40)):
        mine, others = ((labels == k).nonzero()[:, 0] for k in (a, b))
        between.append(cosines(one, torch.cat([mine, others]))[:330, 330:][:300, :300].flatten())
    values = torch.cat(between).sort(descending=True).values
    place = int(0.05 * 990 / (3 * 330 * 329) * len(values))
    assert one.threshold() == pytest.approx(float(values[place]))
    assert len(asked) == 3


def test_pictures_of_two_kinds_are_never_one_thing() -> None:
    """All decisions of a picture set group its pictures in the same way, and only the classes may be one thing."""
    pooled, kinds, _ = planted(5, 8, 4, 0.2)
    labels, digests = (kinds > 1).long(), names(len(kinds))
    by_class, found = group_by_looks(pooled, kinds, digests), group_by_looks(pooled, labels, digests, kinds)
    assert (found.threshold, found.groups.tolist()) == (by_class.threshold, by_class.groups.tolist())
    assert found.one_thing == one_thing(pooled, labels)
    shot = torch.arange(len(kinds)) % 4  # two shots of each thing are of another kind
    apart = group_by_looks(pooled, labels, digests, kinds * 2 + shot // 2).groups
    together = apart[:, None] == apart[None]
    assert not together[(shot[:, None] < 2) & (shot[None] > 1)].any()


def test_kinds_of_one_picture_do_not_lower_the_threshold() -> None:
    """Such a picture does not differ from its mean, so its cosines are 0."""
    pooled, kinds, _ = planted(5, 8, 4, 0.2)
    more, _, _ = planted(60, 1, 1, 0.2, seed=1)
    alone = torch.arange(5, 65)
    both, digests = (torch.cat([pooled, more]), torch.cat([kinds, alone])), names(len(kinds) + 60)
    found, without = group_by_looks(*both, digests), Individuality(pooled, kinds).threshold()
    assert found.threshold == pytest.approx(without, abs=0.1)
    assert not torch.isin(found.groups[:160], found.groups[160:]).any()
    assert group_by_looks(*both, ["0", *digests[:-1]]).groups.unique(return_counts=True)[1].sum() == 220
    assert group_by_looks(more, alone - 5, names(60)).threshold is None


def test_pictures_of_samples_are_grouped_within_their_kinds() -> None:
    pooled, kinds, _ = planted(5, 8, 4, 0.2)
    labels, encoded = (kinds > 1).long(), [Encoded(str(i), str(i), row[None]) for i, row in enumerate(pooled)]
    for of_each, expected in ((["no", "yes", "2", "3", "4"], kinds), ([""] * 5, labels)):
        items = [Sample(str(i), "ab"[k > 1], kind=of_each[k]) for i, k in enumerate(kinds.tolist())]
        groups = hold_out(items, encoded, HoldOut(), Progress()).groups
        assert groups.tolist() == group_by_looks(pooled, expected, names(len(kinds))).groups.tolist()
        assert len(groups.unique()) < len(groups)


def test_copies_and_names_join() -> None:
    """A picture without a name is in no named group."""
    labels, things, digests = ("k", "k", "l", "k", "l", "l"), ("x", "y", "z", "y", None, None), "aabcde"
    items = [Sample(str(i), label, group=thing) for i, (label, thing) in enumerate(zip(labels, things, strict=True))]
    encoded = [Encoded(str(i), digest, torch.rand(1, 4)) for i, digest in enumerate(digests)]
    for split, groups in (("random", [0, 0, 1, 2, 3, 4]), ("grouped", [0, 0, 1, 0, 2, 3])):
        pictures = hold_out(items, encoded, HoldOut(split=split), Progress())
        assert pictures.groups.tolist() == groups


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


def test_a_chain_of_different_things_is_not_one_thing() -> None:
    """Single linkage would make one cluster of a turn by small steps."""
    angle = torch.linspace(0, 3, 60)
    groups = average_linkage((angle[:, None] - angle[None]).cos(), 0.9)
    assert 2 <= len(groups.unique()) < 12


def test_a_class_apart_from_all_others_may_be_one_thing() -> None:
    g = torch.Generator().manual_seed(0)
    pooled, labels = torch.rand(48, 64, generator=g), torch.arange(48) // 16
    assert one_thing(pooled, labels) == ()
    pooled[labels == 1] = pooled[labels == 1][:1] + 0.01 * torch.rand(16, 64, generator=g)
    assert one_thing(pooled, labels) == (1,)
    for n, alike in ((4, (1,)), (3, ()), (2, ()), (1, (1,))):  # two or three pictures may be similar by chance
        some = torch.cat([torch.arange(16 + n), torch.arange(32, 48)])
        assert one_thing(pooled[some], labels[some]) == alike


def coins(n_things: int, n_shots: int, seed: int = 0) -> tuple[list[Sample], list[Encoded]]:
    """Things whose class is the toss of a coin: their shots are known again, new things cannot be."""
    g = torch.Generator().manual_seed(seed)
    things = torch.rand(n_things, 1, 128, generator=g)
    shots = (things + 0.05 * torch.randn(n_things, n_shots, 128, generator=g)).clamp(min=0).flatten(0, 1)
    classes = ["heads" if toss else "tails" for toss in (torch.rand(n_things, generator=g) < 0.5).tolist()]
    items = [Sample(f"{i}.png", classes[i // n_shots]) for i in range(len(shots))]
    return items, [Encoded(s.image, s.image, row[None]) for s, row in zip(items, shots, strict=True)]


def measured(items: list[Sample], seen: list[Encoded], **options: str) -> tuple[float, float | None]:
    """The held-out accuracy, and that of a random part beside it."""
    linear = Linear(n_crops=0)
    pictures = hold_out(items, seen, HoldOut(**options), Progress())  # type: ignore[arg-type]
    rows = Rows.of(pictures, linear._feature)
    chosen = linear._choose(rows, pictures)
    held = chosen.held_out(pictures)
    assert held is not None
    assert held.logits is not None
    at_random = None if chosen.at_random is None else float(chosen.at_random.float().mean())
    return float((held.logits.argmax(1) == held.labels).float().mean()), at_random


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_cannot_be_known_of_new_things_is_near_chance(seed: int) -> None:
    items, seen = coins(60, 5, seed)
    grouped, random = measured(items, seen)
    assert 0.3 <= grouped <= 0.7
    assert random is not None
    alone, beside = measured(items, seen, split="random")
    assert alone > 0.95
    assert beside is None


def test_groups_that_the_user_names_are_kept() -> None:
    items, seen = coins(60, 5)
    named = [Sample(s.image, s.label, group=f"thing {i // 5}") for i, s in enumerate(items)]
    grouped, random = measured(named, seen)
    assert 0.3 <= grouped <= 0.7
    assert random is not None
    assert random > 0.95  # with the C chosen


def test_logits_are_calibrated_and_of_every_picture_once() -> None:
    items, seen = coins(60, 5)
    linear = Linear(n_crops=0)
    pictures = hold_out(items, seen, HoldOut(), Progress())
    held = linear._choose(Rows.of(pictures, linear._feature), pictures).held_out(pictures)
    assert held is not None
    assert held.logits is not None
    assert held.groups is not None
    assert held.logits.shape == (300, 2)
    confidence, decided = held.logits.softmax(1).max(1)
    assert abs(float(confidence.mean()) - float((decided == held.labels).float().mean())) < 0.1
    torch.testing.assert_close(held.pooled, torch.cat([s.pooled for s in seen]))


def test_what_fit_says_of_the_figure() -> None:
    how = {"by": "looks", "n_groups": 721, "unmeasured_classes": [], "one_thing_classes": ["Leek"]}
    measures = {
        "held_out_accuracy": 0.8,
        "held_out_interval": [0.77, 0.83],
        "n_held_out": 2640,
        "expected_range": [0.613, 0.9012],
        "random_accuracy": 0.987,
        "random_interval": [0.97, 0.99],
        "split": how,
    }
    assert held_out_lines(measures) == [
        "in another place or on another day, expect 61 to 91 % "
        "right. To measure it, name visits, cameras or patients with --group, or run seewhy evaluate on new pictures",
        "right on 80.0 % of 2640 pictures (95 % interval 77.0 to 83.0 %); similar-looking shots are held out together "
        "(721 groups)",
        "with pictures held out at random, so that shots of one object are on both sides, the accuracy is 98.7 %",
        "1 class (Leek) may show only one object, so the accuracy on other objects is unknown",
    ]
    for low in (0.8, 0.35):  # 6 of 9 pictures may be right by chance, beside 50 % of all
        assert not any("at random" in line for line in held_out_lines(measures | {"random_interval": [low, 1.0]}))
    assert not any("at random" in line for line in held_out_lines(measures | {"random_accuracy": None}))
    weak = [{"label": "Leek", "n_right": 0, "n": 2}, {"label": "Kiwi", "n_right": 1, "n": 5}]
    few = (
        "fewer than half of the held-out pictures of 2 classes (Leek 0 of 2, Kiwi 1 of 5) were predicted correctly; "
        "add pictures of such classes"
    )
    assert held_out_lines(measures | {"weak_classes": weak})[2] == few
    assert held_out_lines(measures | {"weak_classes": weak, "split": None})[1:] == [few]
    (*_, last) = held_out_lines(measures | {"split": how | {"unmeasured_classes": ["Leek"]}})
    assert last == "1 class (Leek) cannot be measured, because all of its pictures show one object"  # no second line
    (*_, last) = held_out_lines(measures | {"split": how | {"one_thing_classes": ["Leek", "Kiwi"]}})
    assert last.startswith("2 classes (Leek, Kiwi) may each show only one object, so")
    assert held_out_lines(measures | {"split": how | {"by": "copies"}})[1].endswith(
        "if several pictures show the same object, this accuracy is too high"
    )
    (given, *_) = held_out_lines(measures | {"split": how | {"by": "given"}, "expected_range": None})
    assert given == (
        "right on 80.0 % of 2640 pictures (95 % interval 77.0 to 83.0 %); each group is held out as a whole, so expect "
        "this accuracy on new groups"
    )
    (first, *_) = held_out_lines(measures | {"expected_range": None})
    assert first.startswith("these pictures do not show the accuracy in another place or on another day. To measure it")
    (unknown,) = held_out_lines({"held_out_accuracy": None})
    assert unknown.endswith("the accuracy is unknown")


def test_classes_that_are_right_on_less_than_half_are_named_lowest_first() -> None:
    """Of classes with 40, 40, 5, 2 and 1 pictures, a fit said 88 %: it hardly recognised the small ones."""
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])
    right = torch.tensor([True, True, False, True, False, True, False, False, False, False])
    found = weak_classes(["a", "b", "c", "d", "none"], labels, right)
    assert found == [{"label": "d", "n_right": 0, "n": 1}, {"label": "c", "n_right": 1, "n": 4}]


def test_ties_that_rounding_breaks_in_a_circle_come_to_an_end() -> None:
    """Of three equally alike, each nearest to the next by a rounding error: chains of neighbours must not go round."""
    turn = torch.tensor([[1.0, 0.9, 0.9], [0.9, 1.0, 0.9], [0.9, 0.9, 1.0]], dtype=torch.float64)
    for i in range(3):
        turn[i, (i + 1) % 3] += 2e-16
    signal.alarm(20)
    try:
        assert average_linkage(turn, 0.5).tolist() == [0, 0, 0]
        assert average_linkage(torch.full((3, 3), torch.nan), 0.5).tolist() == [0, 1, 2]
    finally:
        signal.alarm(0)
