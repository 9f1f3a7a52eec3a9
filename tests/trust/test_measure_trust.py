"""Trust measured on planted features: what is doubtful is known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import TypeVar

import numpy as np
import pytest
import torch

from seewhy.explanation.prediction import Unknowns
from seewhy.metrics.calibration import accuracy_interval
from seewhy.progress import Progress
from seewhy.trust.base import FAMILIAR, KEPT, TYPICAL, ConformalLines, Trust
from seewhy.trust.measure import MIN_PICTURES, _of_other_classes, auroc, drawn_folds, measure_trust, trust_features
from seewhy.trust.strangeness import KINDS, Inputs, strangers

K, D = 8, 16
T = TypeVar("T")


class World:
    """Classes around centres; a classifier that knows them but for pairs that look alike."""

    def __init__(self, seed: int = 0, k: int = K) -> None:
        self.g = torch.Generator().manual_seed(seed)
        self.centres = torch.randn(k, D, generator=self.g).abs() + 0.2
        self.centres[1] = self.centres[0] * 1.02
        self.k = k

    def draw(self, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = torch.randint(self.k, (n,), generator=self.g)
        x = (self.centres[y] + 0.2 * torch.randn(n, D, generator=self.g)).clamp(min=0)
        return x, y, self.logits(x)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return -torch.cdist(x, self.centres).square() * 3

    def inputs(self, x: torch.Tensor) -> Inputs:
        return Inputs(trust_features(x), self.logits(x))

    def strange(self, n: int) -> torch.Tensor:
        return torch.rand(n, D, generator=self.g) ** 6 * 5


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def trust(world: World) -> Trust:
    x, y, _ = world.draw(800)
    far = world.strange(100)
    found = measure_trust(world.inputs(x), y, strange=world.inputs(far))
    assert found is not None
    return found


@pytest.mark.parametrize("n", [30, 48, 400])
def test_no_decision_is_as_certain_as_its_fit_where_few_were_held_out(trust: Trust, n: int) -> None:
    few = replace(trust, held=replace(trust.held, right=torch.arange(len(trust.held.right)) < n))
    fitted = torch.tensor([0.0, 0.3, 0.5, 0.9, 0.999, 1.0])
    found = few.held_to_count(fitted)
    assert float(found[-1]) == pytest.approx((n + 0.5) / (n + 1))
    assert bool((found.diff() > 0).all())  # the order of decisions stays
    assert bool((found <= fitted.clamp(min=1e-6)).all())
    assert torch.allclose(found[1:3], fitted[1:3], atol=0.5 / n)


def test_what_few_pictures_leave_open_changes_neither_the_sets_nor_their_order(
    world: World, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classes named and the count of surer decisions go by the fit, whose order the probability keeps."""
    inputs, counted = world.inputs(world.draw(300)[0]), []
    monkeypatch.setattr(Trust, "counted", lambda _, fitted: counted.append(fitted) or torch.ones_like(fitted))
    doubtful, sets = [], ConformalLines.sets
    monkeypatch.setattr(ConformalLines, "sets", lambda *given: doubtful.append(given[-1]) or sets(*given))
    few = replace(trust, held=replace(trust.held, right=torch.arange(len(trust.held.right)) < 4))
    judged, as_before = few.judge(inputs, 0.95), trust.judge(inputs, 0.95)
    assert float(judged.probability.max()) < 0.91
    assert torch.equal(judged.sets, as_before.sets)
    assert torch.equal(judged.probability, few.held_to_count(counted[0]))
    assert torch.equal(counted[0], counted[1])
    assert torch.equal(doubtful[0], counted[0] < 0.95)
    assert bool(((judged.low <= judged.probability) & (judged.probability <= judged.high)).all())


def test_no_decision_is_sure_that_is_right_less_often_than_promised(world: World, trust: Trust) -> None:
    """A card of a few pictures said: Sure. It is right in 89 % of cases like this. The promise was 90 %."""
    inputs = world.inputs(world.draw(300)[0])
    few = replace(trust, held=replace(trust.held, right=torch.arange(len(trust.held.right)) < 12))
    for level in (0.9, 0.95, 0.97):
        judged, many = few.judge(inputs, level), trust.judge(inputs, level)
        assert bool(many.sure.any())
        assert torch.equal(judged.sure, many.sure & (judged.probability >= level))
    assert trust.sure_held_out(0.97)[0] > few.sure_held_out(0.97)[0] == 0  # 12 right decisions bear 96 % at most


def test_promises_are_kept_on_new_pictures(world: World, trust: Trust) -> None:
    x, y, logits = world.draw(4000)
    for level in (0.8, 0.9, 0.97):
        judged = trust.judge(world.inputs(x), level)
        covered = float(judged.sets.gather(1, y[:, None]).float().mean())
        right = float((logits.argmax(1) == y).float().mean())
        assert covered > max(level, right) - 0.02
        by_class = [float(judged.sets[y == k, k].float().mean()) for k in range(K)]
        assert min(by_class) > level - 0.06  # a line of its own from about 100 pictures
        assert min(by_class[:2]) < level + 0.06  # twins get no more than is promised
    assert float(judged.sets.sum(1).float().mean()) < 2


def test_probabilities_hold(world: World, trust: Trust) -> None:
    x, y, logits = world.draw(4000)
    judged = trust.judge(world.inputs(x))
    right = logits.argmax(1) == y
    assert float(judged.probability.mean()) == pytest.approx(float(right.float().mean()), abs=0.02)
    assert auroc(judged.probability[right], judged.probability[~right]) > 0.8
    assert bool((judged.low <= judged.probability).all())
    assert bool((judged.probability <= judged.high).all())
    sure = judged.sure
    n, measured = trust.sure_held_out()
    assert n > 100
    assert float(right[sure].float().mean()) == pytest.approx(measured, abs=0.03)


def test_few_pictures_bear_no_narrow_interval(world: World, trust: Trust) -> None:
    """Ten right of ten may be 72 % right by Wilson's limit, whatever a model of them says."""
    few = replace(
        trust, held=replace(trust.held, **{f.name: getattr(trust.held, f.name)[:10] for f in fields(trust.held)})
    )
    all_right = replace(few, held=replace(few.held, right=torch.ones(10, dtype=torch.bool)))
    assert all_right.counted(torch.tensor([0.999, 0.2])).tolist() == pytest.approx([0.7225, 0.7225], abs=1e-3)
    one_wrong = replace(few, held=replace(few.held, right=torch.arange(10) != 3))
    assert float(one_wrong.counted(torch.tensor([0.1]))) == pytest.approx(0.5958, abs=1e-3)
    x, _, _ = world.draw(50)
    assert float(all_right.judge(world.inputs(x)).low.max()) <= 0.7226
    assert float(trust.judge(world.inputs(x)).low.max()) > 0.95  # many pictures bear one


def test_twins_are_one_of_few(world: World, trust: Trust) -> None:
    judged = trust.judge(world.inputs(world.centres))
    assert judged.sets[0, :2].all()
    assert not judged.sure[:2].any()
    assert judged.sure[2:].all()


def test_unknown_pictures_are_noticed_and_that_is_measured(world: World, trust: Trust) -> None:
    far = world.strange(200)
    judged = trust.judge(world.inputs(far))
    assert float(judged.unknown.float().mean()) == pytest.approx(trust.unknowns.far_found, abs=0.1)
    assert trust.unknowns.far > 0.95
    x, _, _ = world.draw(2000)
    kept = trust.judge(world.inputs(x))
    assert float(kept.unknown.float().mean()) == pytest.approx(1 - KEPT, abs=0.02)
    assert trust.unknowns.kept == pytest.approx(KEPT, abs=0.005)
    assert bool((kept.doubt[kept.unknown] > kept.doubt[~kept.unknown].max()).all())


def test_near_unknowns_are_measured_as_they_come_out() -> None:
    """Two of eight classes taken away for good: noticed, on average over worlds, as often as the other six had said."""
    said, real, kept = [], [], torch.arange(6)
    for seed in range(1, 7):
        other = World(seed)
        other.centres[1] = torch.rand(D, generator=other.g)
        x, y, logits = other.draw(1600)
        inputs, known = Inputs(trust_features(x), logits[:, kept]), torch.isin(y, kept)
        mine, new = known & (torch.arange(1600) < 800), torch.arange(1600) >= 800
        found = measure_trust(inputs.rows(mine), y[mine])
        assert found is not None
        judged = found.judge(inputs.rows(new))
        area = auroc(judged.unusual[~known[new]], judged.unusual[known[new]])
        assert area == pytest.approx(found.unknowns.near, abs=0.1)
        assert area > 0.9
        assert found.unknowns.n_near == int(mine.sum())  # every class was left out once
        low, high = found.unknowns.near_interval
        assert low <= found.unknowns.near_found <= high
        said.append((found.unknowns.near_found, found.unknowns.near_sure))
        real.append([float(flags[~known[new]].float().mean()) for flags in (judged.unknown, judged.sure)])
    assert np.mean(said, 0) == pytest.approx(np.mean(real, 0), abs=0.12)


def test_what_is_strange_is_never_sure_and_another_day_widens_the_interval(world: World, trust: Trust) -> None:
    x, _, _ = world.draw(2000)
    judged = trust.judge(world.inputs(x))
    strange, unusual = trust._limits
    few = FAMILIAR - (FAMILIAR * (1 - FAMILIAR) / 800) ** 0.5
    assert strange == pytest.approx(float(trust.held.strangeness.quantile(few)))
    assert not judged.sure[judged.unusual > unusual].any()
    assert float((judged.unusual <= unusual).float().mean()) == pytest.approx(TYPICAL, abs=0.05)
    found, _ = trust.strangeness(world.inputs(x))
    assert not judged.sure[found > strange].any()
    assert float((found <= strange).float().mean()) == pytest.approx(FAMILIAR, abs=0.05)
    assert torch.equal(judged.familiar, (found <= strange) & (judged.unusual <= unusual))
    other = replace(trust, shift=(1.0, 0.5)).judge(world.inputs(x))
    assert torch.equal(other.probability, judged.probability)
    assert torch.allclose(judged.low.logit(1e-6) - other.low.logit(1e-6), torch.tensor(1.0), atol=1e-2)
    assert bool((other.high >= judged.high).all())


def test_a_class_left_out_is_left_out_of_the_fit(world: World) -> None:
    """Each fit sees pictures of the other classes alone, and what it says is what is judged."""
    x, y, logits = world.draw(300)
    seen: list[tuple[int, int]] = []

    def fit(features: torch.Tensor, labels: torch.Tensor, n_classes: int):  # type: ignore[no-untyped-def]
        seen.append((len(labels), n_classes))
        assert sorted(labels.unique().tolist()) == list(range(n_classes))
        return lambda rows: torch.zeros(len(rows), n_classes) + torch.arange(n_classes)

    found = measure_trust(Inputs(trust_features(x), logits), y, fit=fit)
    assert found is not None
    assert [k for _, k in seen] == [K - 1] * K
    assert all(n < 300 - int((y == 0).sum()) for n, _ in seen)  # nor one fold of the others
    assert found.unknowns.near_sure == 0.0  # a classifier that always says the same is never sure


@pytest.mark.parametrize("factor", [0.01, 30.0])
def test_a_fit_without_a_class_is_as_confident_as_the_whole_one(factor: float) -> None:
    """Classes that are easily separated made its logits 100 times too large: 22 % sure were said, where 8.5 were."""
    other = World(2)
    other.centres[1] = torch.rand(D, generator=other.g) * 2
    x, y, logits = other.draw(400)
    inputs = Inputs(trust_features(x), logits)

    def fit(scale: float):  # type: ignore[no-untyped-def]
        def of(features: torch.Tensor, labels: torch.Tensor, n_classes: int):  # type: ignore[no-untyped-def]
            means = torch.stack([features[labels == k].mean(0) for k in range(n_classes)])
            return lambda rows: -torch.cdist(rows, means).square() * scale

        return of

    one, two = (measure_trust(inputs, y, fit=fit(s)) for s in (1.0, factor))
    assert one is not None
    assert two is not None
    assert two.unknowns.near_sure == pytest.approx(one.unknowns.near_sure, abs=0.005)
    assert two.unknowns.near == pytest.approx(one.unknowns.near, abs=0.005)


def test_the_figure_for_unknown_classes_is_a_range_of_other_classes() -> None:
    flags, labels = torch.tensor([True] * 3 + [False] * 37), torch.arange(40) // 10
    own, other = accuracy_interval(flags, labels), _of_other_classes(flags, labels)
    assert other[0] == pytest.approx(max(0.0, 0.075 - 2**0.5 * (0.075 - own[0])))
    assert other[1] == pytest.approx(0.075 + 2**0.5 * (own[1] - 0.075))
    said = Unknowns(near_found=0.2, near_interval=(0.1, 0.5), near_sure=0.075, near_sure_interval=other, n_near=40)
    assert "an unknown class on between 10 and 50 % of pictures, and is wrongly sure on between 0 and" in said.sentence


def test_two_classes_have_no_near_unknowns() -> None:
    x, y, logits = World(k=2).draw(200)
    found = measure_trust(Inputs(trust_features(x), logits), y)
    assert found is not None
    assert found.unknowns.near is None
    assert "has not measured how often" in found.unknowns.sentence


def test_too_little_is_not_measured(world: World) -> None:
    x, y, logits = world.draw(MIN_PICTURES - 1)
    assert measure_trust(Inputs(trust_features(x), logits), y) is None
    x, y, logits = world.draw(100)
    assert measure_trust(Inputs(trust_features(x), logits), torch.zeros_like(y)) is None
    assert measure_trust(Inputs(trust_features(x), logits), y, torch.zeros_like(y)) is None


@pytest.mark.parametrize("n", [MIN_PICTURES, 16])
def test_few_pictures_notice_what_is_far_and_promise_little(n: int) -> None:
    """Two classes of eight pictures: a black picture was "Satsumas 62 %", without a word that nothing was measured."""
    world = World(seed=3, k=2)
    world.centres[1] = torch.rand(D, generator=world.g)
    x, y = world.centres[torch.arange(n) % 2] + 0.1 * torch.randn(n, D, generator=world.g), torch.arange(n) % 2
    found = measure_trust(world.inputs(x.clamp(min=0)), y)
    assert found is not None
    far, new = found.judge(world.inputs(world.strange(200))), found.judge(world.inputs(world.draw(400)[0]))
    assert float(far.unknown.float().mean()) > 0.95
    assert not far.sure.any()
    assert float(new.probability.max()) <= (n + 0.5) / (n + 1)
    assert float(new.low.max()) < 0.85  # Wilson's bound of 16 right of 16 is 81 %


def test_a_picture_that_is_less_typical_is_less_probably_right(world: World, trust: Trust) -> None:
    """Right has three signs: what two classifiers say, and how typical the picture is."""
    judged = trust.judge(world.inputs(world.draw(1000)[0]))
    assert len(trust.right.mean) == 3
    slopes = replace(trust.right, slopes=torch.tensor([0.0, 0.0, 1.0, 0.0]))
    only = replace(trust, right=slopes).judge(world.inputs(world.draw(200)[0]))
    order = only.unusual.argsort()
    assert bool((only.probability[order].diff() <= 0).all())
    assert float(judged.probability.max()) < 1


def test_all_right_and_classes_of_one_group_are_finite(world: World) -> None:
    x, y, _ = world.draw(60)
    logits = 9.0 * torch.nn.functional.one_hot(y, K)
    found = measure_trust(Inputs(trust_features(x), logits), y, groups=y)  # a fold takes whole classes away
    assert found is not None
    judged = found.judge(Inputs(trust_features(x), logits))
    for name, value in vars(judged).items():
        assert bool(value.float().isfinite().all()), name


def test_adding_a_constant_to_logits_changes_nothing(world: World, trust: Trust) -> None:
    x, _, logits = world.draw(20)
    one, two = (trust.judge(Inputs(trust_features(x), logits + c)) for c in (0.0, 7.0))
    assert torch.equal(one.sets, two.sets)
    assert torch.allclose(one.probability, two.probability, atol=1e-4)


def test_what_is_kept_gives_the_same_judgement(world: World, trust: Trust) -> None:
    x, _, _ = world.draw(20)
    kept = (trust.tensors(), trust.strangeness.bank, len(trust.gaussian.bias))
    again = Trust.restore(trust.facts(), *kept)
    one, two = (t.judge(world.inputs(x)) for t in (trust, again))
    assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True))
    with pytest.raises(ValueError, match="version"):
        Trust.restore({**trust.facts(), "version": 9}, *kept)


def test_folds_keep_groups_whole() -> None:
    groups = torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 5, 6])
    folds = drawn_folds(groups)
    assert all(len(folds[groups == g].unique()) == 1 for g in range(7))
    assert len(folds.unique()) == 5


def test_strangers_are_of_every_kind_and_the_same_again() -> None:
    made = strangers(len(KINDS), 48)
    assert {p.shape for p in made} == {(48, 48, 3)}
    assert all(p.dtype == np.uint8 for p in made)
    assert len({p.tobytes() for p in made}) == len(KINDS)
    assert all(np.array_equal(a, b) for a, b in zip(made, strangers(len(KINDS), 48), strict=True))
    assert {p.shape for p in strangers(len(KINDS), 8)} == {(8, 8, 3)}


def test_progress_is_told_of_the_fits_without_a_part_of_the_classes(world: World) -> None:
    heard: list[tuple[str, int | None]] = []

    class Heard(Progress):
        def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
            heard.append((what, total))
            yield from items

    x, y, _ = world.draw(80)
    measure_trust(world.inputs(x), y, progress=Heard())
    assert heard == [("Measuring how far to trust it", K)]
