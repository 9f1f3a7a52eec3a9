"""Compare old and new descriptions: accuracy, classes, groups, and changed predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifiers.base import Classifier
from ..classifiers.words import by_words, words_decide
from ..descriptions.base import Change
from ..pictures.samples import Sample
from ..report.blocks import pair
from .bootstrap import Paired, paired, paired_means, rounded


def compare_words(
    before: Classifier, after: Classifier, changes: Sequence[Change], samples: Sequence[Sample],
    pooled: Float[Tensor, "n d"], *, n_draws: int = 2000, level: float = 0.95, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Compare two sets of descriptions on the same pictures; the result is described in docs/json.md.

    Predictions are compared if the descriptions make the decision (zero_shot, described). Otherwise, the classes that
    the descriptions choose are compared.
    """
    how = {"n_draws": n_draws, "level": level, "seed": seed}
    labels = torch.tensor([before.index_of(s.label) for s in samples])
    old, new = by_words(before, pooled), by_words(after, pooled)
    right = torch.stack([old == labels, new == labels], 1).double()
    groups = sorted({s.text for s in samples if s.text is not None})
    member = torch.tensor([[s.text == g for g in groups] for s in samples])
    of_groups = [(g, right[mine]) for g, mine in zip(groups, member.unbind(1), strict=True)] if groups else []
    data = {
        "study": "edit-words", "decides": words_decide(before), "n": len(samples),
        "changes": [asdict(c) for c in changes], "accuracy": _told(paired_means(right, **how)),
        "per_class": _per_class(before.classes, labels, old, new),
        "groups": [{"group": g, "n": len(own), **_told(paired_means(own, **how))} for g, own in of_groups],
        "gap": gap_between(right, member.double(), **how) if len(groups) > 1 else None,
        "flips": _flips(before.classes, samples, old, new), "settings": how,
    }  # fmt: skip
    return {**data, "sentence": _sentence(data, changes)}


def _told(found: Paired) -> dict[str, Any]:
    before, after = rounded(found.values.tolist())
    return {"before": before, "after": after, **found.change(1, 0)}


def gap_between(right: Float[Tensor, "n 2"], member: Float[Tensor, "n g"], **how: Any) -> dict[str, Any]:
    """Return the change of the gap between the groups with the highest and the lowest accuracy."""
    n_groups = member.shape[1]
    hit = member[:, None] * right[..., None]

    def gap(means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
        accuracy = means[..., :n_groups] / means[..., n_groups:]
        return accuracy.amax(-1) - accuracy.amin(-1)

    strata = (member @ torch.arange(1.0, n_groups + 1).double()).long()
    return _told(paired(torch.cat([hit, member[:, None].expand_as(hit)], 2), gap, strata=strata, **how))


def _per_class(
    classes: Sequence[str], labels: Int[Tensor, " n"], old: Int[Tensor, " n"], new: Int[Tensor, " n"]
) -> list[dict[str, Any]]:
    """Return the classes whose predictions changed, largest change first."""
    rows = []
    for k, label in enumerate(classes):
        mine = labels == k
        right, chosen = ([int((among & (p == k)).sum()) for p in (old, new)] for among in (mine, torch.ones_like(mine)))
        if right[0] != right[1] or chosen[0] != chosen[1]:
            row = {"label": label, "n": int(mine.sum()), "right_before": right[0], "right_after": right[1]}
            rows.append({**row, "chosen_before": chosen[0], "chosen_after": chosen[1]})
    return sorted(rows, key=lambda r: -abs(r["chosen_after"] - r["chosen_before"]))


def _flips(classes: Sequence[str], kept: Sequence[Sample], old: Tensor, new: Tensor) -> list[dict[str, Any]]:
    """Return the pictures whose prediction changed: newly wrong, newly right, then wrong in another way."""
    rows: dict[str, list[dict[str, Any]]] = {"broken": [], "mended": [], "other": []}
    for sample, a, b in zip(kept, old.tolist(), new.tolist(), strict=True):
        if a != b:
            before, after = classes[a], classes[b]
            kind = "broken" if before == sample.label else "mended" if after == sample.label else "other"
            row = {"image": sample.image, "label": sample.label, "before": before, "after": after, "kind": kind}
            rows[kind].append({**row, **({} if sample.text is None else {"group": sample.text})})
    return [row for several in rows.values() for row in several]


def _sentence(data: dict[str, Any], changes: Sequence[Change]) -> str:
    told, gap, kinds = data["accuracy"], data["gap"], [f["kind"] for f in data["flips"]]
    verb, luck = "raises" if told["difference"] > 0 else "lowers", "" if told["real"] else " beyond chance"
    effect = (
        f"{verb} accuracy by {abs(told['difference']) * 100:.1f} points" if told["real"] else "does not change accuracy"
    )
    subject = "The edit" if data["decides"] else "The edit, measured on the descriptions alone,"
    said = (
        f"{subject} changes {len(changes)} description(s) and {effect}{luck} ({100 * told['before']:.1f} to "
        f"{100 * told['after']:.1f} %, difference {pair(told['interval'], sign=True)} points on {data['n']} "
        f"pictures). "
        f"{len(kinds)} decision(s) change: {kinds.count('mended')} become right and {kinds.count('broken')} wrong."
    )
    if gap is None:
        return said
    shown = "narrows" if gap["difference"] < 0 else "widens"
    how = f"{shown} it" if gap["real"] else "is not shown to change it"
    return (
        f"{said} The gap in accuracy between groups is {100 * gap['before']:.1f} % before and {100 * gap['after']:.1f} "
        f"% after. The edit {how}."
    )
