"""Conformal sets, novelty scores, AUROC, risk–coverage: closed forms, peers' numbers, promises kept on average."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from seewhy.trust import strangeness
from seewhy.trust.base import ConformalLines, Monotone, quantile
from seewhy.trust.measure import RiskCoverage, _likeliest, auroc
from seewhy.trust.strangeness import (
    RIDGE,
    SPREAD,
    USUAL,
    WIDEST,
    Gaussian,
    Inputs,
    Strangeness,
    _spread,
    narrowed,
    neighbour_distance,
)

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def test_sets_equal_crepes() -> None:
    """At levels whose rank is no whole number: there crepes takes one picture more."""
    g = golden("conformal")
    held, labels, asked = torch.tensor(g["held_out"]), torch.tensor(g["labels"]), torch.tensor(g["asked"])
    score = 1 - held.gather(1, labels[:, None])[:, 0]
    for level in (0.83, 0.93):
        for least, key in ((1000, "sets"), (1, "by_class")):
            lines = ConformalLines(score, labels, 3, score > 1, min_per_class=least).lines(level)[0]
            assert (1 - asked <= lines + 1e-6).int().tolist() == g[f"{key}_{level}"]


def test_too_few_pictures_promise_nothing() -> None:
    assert quantile(torch.tensor([0.1] * 8), 0.9) == 1.0  # ⌈9 · 0.9⌉ = 9 of 8
    assert quantile(torch.tensor([0.1] * 9), 0.9) == pytest.approx(0.1)
    lines = ConformalLines(torch.tensor([0.1]), torch.tensor([0]), 3, torch.tensor([False]))
    assert lines.sets(torch.tensor([[0.9, 0.1, 0.0]]), torch.tensor([0]), 0.9, torch.tensor([False])).all()


def test_the_class_decided_for_is_in_every_set() -> None:
    lines = ConformalLines(torch.zeros(50), torch.zeros(50, dtype=torch.long), 2, torch.zeros(50, dtype=torch.bool))
    sets = lines.sets(torch.tensor([[0.2, 0.8]]), torch.tensor([0]), 0.9, torch.tensor([False]))
    assert sets.tolist() == [[True, False]]


@pytest.mark.parametrize("least", [50, 10_000])
def test_the_promise_is_kept_on_average(least: int) -> None:
    """Over many draws of held-out and new pictures the true class is in the set as often as promised, by class too."""
    g = torch.Generator().manual_seed(0)
    covered, by_class = [], [[], []]
    for _ in range(200):
        labels = torch.randint(2, (400,), generator=g)
        logits = torch.randn(400, 2, generator=g) + 1.5 * torch.nn.functional.one_hot(labels, 2) * (1 + labels[:, None])
        p = logits.softmax(1)
        decided = p.argmax(1)
        score = (1 - p.gather(1, labels[:, None])[:, 0]).masked_fill(decided == labels, 0)
        lines = ConformalLines(score[:200], labels[:200], 2, score[:200] > 1, min_per_class=least)
        sets = lines.sets(p[200:], decided[200:], 0.95, score[200:] > 1)
        inside = sets.gather(1, labels[200:, None])[:, 0].float()
        covered.append(float(inside.mean()))
        for k in (0, 1):
            by_class[k].append(float(inside[labels[200:] == k].mean()))
    assert 0.945 < np.mean(covered) < 0.985  # class 1 is right more often than promised
    low, high = (np.mean(c) for c in by_class)
    assert (low > 0.945) == (least == 50)
    assert high > 0.945


def test_doubtful_decisions_keep_the_promise_too() -> None:
    """Half of the pictures are always right: on the whole the top class alone would do, for the others it would not."""
    g = torch.Generator().manual_seed(0)
    n = 4000
    doubtful = torch.arange(n) % 2 == 1
    p = torch.where(doubtful[:, None], torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.98, 0.01, 0.01]))
    labels = torch.where(doubtful, torch.multinomial(p, 1, generator=g)[:, 0], torch.zeros(n, dtype=torch.long))
    decided = torch.zeros(n, dtype=torch.long)
    score = (1 - p.gather(1, labels[:, None])[:, 0]).masked_fill(labels == 0, 0)
    half = n // 2
    for known, low in ((torch.zeros_like(doubtful), 0.4), (doubtful, 0.7)):
        lines = ConformalLines(score[:half], torch.zeros(half, dtype=torch.long), 3, known[:half])
        inside = lines.sets(p[half:], decided[half:], 0.7, known[half:]).gather(1, labels[half:, None])[:, 0]
        covered = float(inside[doubtful[half:]].float().mean())
        assert (covered > 0.68) == bool(known.any())
        assert covered > low - 0.05


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_auroc_counts_pairs(a: list[int], b: list[int]) -> None:
    pairs = [1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b]
    assert auroc(torch.tensor(a).float(), torch.tensor(b).float()) == pytest.approx(np.mean(pairs))


def test_auroc_without_one_side() -> None:
    assert auroc(torch.tensor([1.0]), torch.tensor([])) is None


def test_risk_coverage_of_a_perfect_a_blind_and_a_perverse_doubt() -> None:
    right = torch.tensor([True, True, False, False])
    perfect = RiskCoverage.of(torch.tensor([0.1, 0.2, 0.3, 0.4]), right)
    assert perfect.risk == pytest.approx((0, 0, 1 / 3, 1 / 2))
    assert perfect.area == perfect.best == pytest.approx((1 / 3 + 1 / 2) / 4)
    blind = RiskCoverage.of(torch.zeros(4), right)
    assert blind.risk == pytest.approx((0.5,) * 4)
    assert blind.area == blind.chance == 0.5
    perverse = RiskCoverage.of(torch.tensor([0.4, 0.3, 0.2, 0.1]), right)
    assert perverse.risk == pytest.approx((1, 1, 2 / 3, 1 / 2))
    assert [p["coverage"] for p in perfect.at(2)] == [0.25, 1.0]


class Known(NamedTuple):
    features: torch.Tensor
    labels: torch.Tensor
    logits: torch.Tensor


def known_pictures() -> tuple[Known, torch.Tensor, torch.Tensor]:
    """As the golden numbers were made from."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 4
    centres = torch.randn(4, 12, generator=g) * 2
    x = centres[y] + torch.randn(200, 12, generator=g)
    w, b = torch.randn(4, 12, generator=g), torch.randn(4, generator=g)
    q = torch.randn(6, 12, generator=g) * 3
    return Known(x, y, x @ w.T + b), q, q @ w.T + b


def test_scores_equal_pytorch_ood(monkeypatch: pytest.MonkeyPatch) -> None:
    """They divide no covariance by the number, and take half of the distances."""
    known, q, _ = known_pictures()
    expected = {name: torch.tensor(values) for name, values in golden("novelty")["scores"].items()}
    assert torch.allclose(neighbour_distance(q, known.features, 1), expected["neighbour"], atol=1e-3)
    monkeypatch.setattr(strangeness, "RIDGE", 1e-9)
    ours = Gaussian.fit(known.features, known.labels, 4)
    assert torch.allclose(ours.relative(q) / 200, expected["relative"], atol=1e-3)
    whole = ours.relative(q) + ours.from_all(q)
    assert torch.allclose(whole / 400, expected["mahalanobis"], atol=1e-3)


def covariances(known: Known) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means of the classes, and the covariances within and of all with their ridges."""
    x = known.features.double()
    means = torch.stack([x[known.labels == k].mean(0) for k in range(4)])
    centred, x = x - means[known.labels], x - x.mean(0)
    both = []
    for rows in (centred, x):
        found = rows.T @ rows / len(rows)
        d = len(found)
        both.append(found + RIDGE * found.trace() / d * torch.eye(d, dtype=torch.double))
    return means, both[0], both[1]


def test_the_second_opinion_is_the_density_of_gaussians_with_one_covariance() -> None:
    known, q, _ = known_pictures()
    means, within, _ = covariances(known)
    density = torch.distributions.MultivariateNormal(means, within).log_prob(q.double()[:, None])
    ours = Gaussian.fit(known.features, known.labels, 4)
    assert torch.allclose(ours.logits(q).log_softmax(1), density.log_softmax(1).float(), atol=1e-2)


@pytest.mark.parametrize("n", [200, 9])
def test_distances_are_those_of_the_papers_with_few_pictures_too(n: int) -> None:
    """Nine pictures of twelve features: by Woodbury's identity."""
    known, q, _ = known_pictures()
    known = Known(known.features[:n], known.labels[:n], known.logits[:n])
    ours = Gaussian.fit(known.features, known.labels, 4)
    means, within, among = covariances(known)
    square = lambda away, form: (away @ torch.linalg.inv(form) * away).sum(-1)  # noqa: E731
    from_all = square(q.double() - known.features.double().mean(0), among)
    nearest = square(q.double()[:, None] - means, within).min(1).values
    assert torch.allclose(ours.from_all(q), from_all.float(), rtol=5e-3, atol=0.05)
    assert torch.allclose(ours.relative(q), (nearest - from_all).float(), rtol=5e-3, atol=0.05)


def test_a_class_without_a_picture_has_no_opinion_and_is_nearest_to_nothing() -> None:
    known, q, _ = known_pictures()
    three = known.labels < 3
    ours = Gaussian.fit(known.features[three], known.labels[three], 4)
    assert ours.known.tolist() == [True, True, True, False]
    alone = Gaussian.fit(known.features[three], known.labels[three], 3)
    assert torch.allclose(ours.relative(q), alone.relative(q), atol=1e-3)
    assert torch.allclose(ours.logits(q)[:, :3], alone.logits(q), atol=1e-3)


def test_each_score_of_strangeness_is_its_formula() -> None:
    known, q, logits = known_pictures()
    own = lambda x: (x[:, :5] * 2).softmax(1)  # noqa: E731
    seen = Inputs(known.features, known.logits, own(known.features))
    fold = torch.arange(200) // 4 % 5
    whole = Gaussian.fit(known.features, known.labels, 4)
    without = {f: Gaussian.fit(known.features[fold != f], known.labels[fold != f], 4) for f in range(5)}
    found, strange, unusual = Strangeness.fit(seen, known.labels, fold, whole, without)
    scores = found.scores(Inputs(q, logits, own(q)))
    assert torch.allclose(
        scores[:, 0], torch.cdist(normalize(q), normalize(known.features)).sort(1).values[:, 2], atol=1e-5
    )
    assert torch.equal(neighbour_distance(q, known.features[:2], 3), neighbour_distance(q, known.features[:2], 2))
    assert torch.equal(scores[:, 1], whole.from_all(q))
    assert torch.equal(scores[:, 2], whole.relative(q))
    lead = logits.max(1).values - logits.mean(1)
    assert torch.allclose(scores[:, 3], -lead / (q - known.features.mean(0)).norm(dim=1))
    means = torch.stack([own(known.features)[known.labels == k].mean(0) for k in range(4)])
    overlap = (own(q) * means[logits.argmax(1)]).sqrt().sum(1)
    assert torch.allclose(scores[:, 4], -logits.softmax(1).max(1).values)
    assert torch.allclose(scores[:, 5], -overlap.log(), atol=2e-3)
    # Out of fold: of the pictures of one fold, by what was fitted without it; each score in its own deviations.
    part = Inputs(known.features[fold != 0], known.logits[fold != 0], own(known.features[fold != 0]))
    rest = Strangeness._of(part, known.labels[fold != 0], without[0])
    first = (rest.scores(seen.rows(fold == 0)) - found.mean) / found.deviation
    decided = known.logits.argmax(1)
    in_units = lambda rows, k: (rows[:, :2].mean(1) - found.spread[k, 0]) / found.spread[k, 1]  # noqa: E731
    assert torch.allclose(in_units(first, decided[fold == 0]), strange[fold == 0], atol=1e-5)
    mine = decided == 1
    plain = unusual + found.usual[decided]
    assert torch.allclose(first.mean(1), plain[fold == 0], atol=1e-5)
    assert float(found.usual[1]) == pytest.approx(float(plain[mine].sum()) / (int(mine.sum()) + USUAL), abs=1e-5)
    now, beside = found(Inputs(q, logits, own(q)))
    unit = (scores - found.mean) / found.deviation
    assert torch.allclose(now, in_units(unit, logits.argmax(1)))
    assert torch.allclose(beside, unit.mean(1) - found.usual[logits.argmax(1)])
    assert found.scores(Inputs(q, logits + 3, own(q))).allclose(scores, atol=1e-4)  # a constant changes nothing


def test_a_class_of_very_different_pictures_has_a_spread_of_its_own() -> None:
    strange = torch.cat([torch.zeros(40) + 0.1 * torch.arange(40) / 40, 4 * torch.arange(40) / 40])
    decided = torch.arange(80) // 40
    count = torch.tensor([40, 40, 0])
    spread = _spread(strange, decided, count)
    means = [(strange[decided == k].sum() + SPREAD * strange.mean()) / (40 + SPREAD) for k in (0, 1)]
    assert spread[:2, 0].tolist() == pytest.approx([float(m) for m in means], abs=1e-5)
    assert float(spread[2, 0]) == pytest.approx(float(strange.mean()), abs=1e-5)  # without a picture: that of all
    assert float(spread[0, 1]) < 0.8 * float(spread[2, 1]) < 0.9 * float(spread[1, 1])


def test_an_encoder_without_classes_of_its_own_has_five_scores() -> None:
    known, q, logits = known_pictures()
    fold = torch.arange(200) % 5
    without = {f: Gaussian.fit(known.features[fold != f], known.labels[fold != f], 4) for f in range(5)}
    inputs, whole = Inputs(known.features, known.logits), Gaussian.fit(known.features, known.labels, 4)
    found, _, _ = Strangeness.fit(inputs, known.labels, fold, whole, without)
    assert found.scores(Inputs(q, logits)).shape == (6, 5)
    assert found.posteriors.shape == (4, 0)


def test_the_model_of_signs_equals_sklearn_and_leaves_out_what_counts_the_wrong_way() -> None:
    from sklearn.linear_model import LogisticRegression

    g = torch.Generator().manual_seed(0)
    signs = torch.randn(3000, 2, generator=g)
    true = torch.rand(3000, generator=g) < (1.3 * signs[:, 0] + 0.4 * signs[:, 1] + 0.5).sigmoid()
    ours = Monotone.fit(signs, true, torch.arange(3000))
    z = ((signs - ours.mean) / ours.deviation).numpy()
    peer = LogisticRegression(C=1.0).fit(z, true.numpy())
    assert torch.allclose(ours.slopes, torch.tensor([*peer.coef_[0], *peer.intercept_]).float(), atol=2e-3)
    wrong_way = Monotone.fit(torch.cat([signs, -signs[:, :1]], 1), true, torch.arange(3000))
    assert wrong_way.slopes[2] == 0
    assert bool((wrong_way.drawn[:, 2] == 0).all())


def test_intervals_are_wider_where_pictures_show_the_same_things() -> None:
    g = torch.Generator().manual_seed(0)
    signs = torch.randn(200, 1, generator=g)
    true = torch.rand(200, generator=g) < signs[:, 0].sigmoid()
    copies = torch.arange(200).repeat(5)
    alone = Monotone.fit(signs.repeat(5, 1), true.repeat(5), torch.arange(1000))
    together = Monotone.fit(signs.repeat(5, 1), true.repeat(5), copies)
    width = [float((m.interval(signs)[1] - m.interval(signs)[0]).mean()) for m in (alone, together)]
    assert width[1] > 1.8 * width[0]


def test_wide_features_are_projected_and_keep_their_distances() -> None:
    few = torch.randn(5, WIDEST)
    assert narrowed(few) is few
    wide = torch.randn(6, WIDEST + 500, generator=torch.Generator().manual_seed(0))
    found = narrowed(wide)
    assert found.shape == (6, WIDEST)
    assert torch.equal(found, narrowed(wide))
    assert (torch.pdist(found) / torch.pdist(wide)).sub(1).abs().max() < 0.1


def test_the_factor_of_separated_classes_is_the_largest() -> None:
    # Beyond some factor the loss is 0 whatever the factor; a search that stops there gives another number each time.
    assert _likeliest(9 * torch.eye(3), torch.arange(3)) == pytest.approx(100, rel=1e-6)
