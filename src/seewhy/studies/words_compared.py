"""Words as they were beside words as they are: accuracy, for classes and groups, and every picture that turns over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..classifiers.base import Classifier
from ..classifiers.words import by_words, words_decide
from ..descriptions.base import Change
from ..pictures.samples import Sample
from .bootstrap import Paired, paired


@dataclass(frozen=True)
class WordsCompared:
    """What two sets of words decide on the same pictures.

    Where the words decide (zero_shot, described), the decision is compared; elsewhere what the words alone choose.
    """

    n_draws: int = 2000
    level: float = 0.95
    seed: int = 0

    def __call__(
        self,
        before: Classifier,
        after: Classifier,
        changes: Sequence[Change],
        samples: Sequence[Sample],
        pooled: Float[Tensor, "n d"],
    ) -> dict[str, Any]:
        """The part of the study's JSON (docs/json.md) that is about the change."""
        labels = torch.tensor([before.index_of(s.label) for s in samples])
        old, new = by_words(before, pooled), by_words(after, pooled)
        right = torch.stack([old == labels, new == labels], 1)
        groups = sorted({s.text for s in samples if s.text is not None})
        data = {
            "study": "edit-words",
            "decides": words_decide(before),
            "n": len(samples),
            "changes": [asdict(c) for c in changes],
            "accuracy": self._difference(right),
            "per_class": _per_class(before.classes, labels, old, new),
            "groups": [self._group(right, samples, g) for g in groups],
            "gap": self._gap(right, samples, groups) if len(groups) > 1 else None,
            "flips": _flips(before.classes, samples, old, new),
            "settings": asdict(self),
        }
        return {**data, "sentence": _sentence(data, changes)}

    def _difference(self, right: Bool[Tensor, "n 2"]) -> dict[str, Any]:
        return _told(
            paired(
                right.double()[..., None], lambda m: m[..., 0], n_draws=self.n_draws, level=self.level, seed=self.seed
            )
        )

    def _group(self, right: Bool[Tensor, "n 2"], kept: Sequence[Sample], group: str) -> dict[str, Any]:
        mine = torch.tensor([s.text == group for s in kept])
        return {"group": group, "n": int(mine.sum()), **self._difference(right[mine])}

    def _gap(self, right: Bool[Tensor, "n 2"], kept: Sequence[Sample], groups: Sequence[str]) -> dict[str, Any]:
        """How far the best and the worst group are apart, before and after."""
        member = torch.tensor([[s.text == g for g in groups] for s in kept]).double()
        hit = member[:, None] * right.double()[..., None]
        sums = torch.cat([hit, member[:, None].expand_as(hit)], 2)

        def gap(means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
            accuracy = means[..., : len(groups)] / means[..., len(groups) :]
            return accuracy.amax(-1) - accuracy.amin(-1)

        strata = (member @ torch.arange(1.0, len(groups) + 1).double()).long()
        how = {"n_draws": self.n_draws, "level": self.level, "seed": self.seed}
        return _told(paired(sums, gap, strata=strata, **how))  # type: ignore[arg-type]


def _told(found: Paired) -> dict[str, Any]:
    """Before, after, and the difference with its interval."""
    value, (low, high), real = found.difference(1, 0)
    return {
        "before": round(float(found.values[0]), 4),
        "after": round(float(found.values[1]), 4),
        "difference": round(value, 4),
        "interval": [round(low, 4), round(high, 4)],
        "real": real,
    }


def _per_class(
    classes: Sequence[str], labels: Int[Tensor, " n"], old: Int[Tensor, " n"], new: Int[Tensor, " n"]
) -> list[dict[str, Any]]:
    """Classes with pictures whose figures moved, those that moved most first."""
    rows = []
    for k, label in enumerate(classes):
        mine = labels == k
        before, after = (int((mine & (p == k)).sum()) for p in (old, new))
        named = [int((p == k).sum()) for p in (old, new)]
        if before != after or named[0] != named[1]:
            row = {"label": label, "n": int(mine.sum()), "right_before": before, "right_after": after}
            rows.append({**row, "chosen_before": named[0], "chosen_after": named[1]})
    return sorted(rows, key=lambda r: -abs(r["chosen_after"] - r["chosen_before"]))


def _flips(
    classes: Sequence[str], kept: Sequence[Sample], old: Int[Tensor, " n"], new: Int[Tensor, " n"]
) -> list[dict[str, Any]]:
    """Pictures whose decision turned over: broken first, then mended, then wrong in another way."""
    order = {"broken": 0, "mended": 1, "other": 2}
    rows = []
    for sample, a, b in zip(kept, old.tolist(), new.tolist(), strict=True):
        if a != b:
            before, after = classes[a], classes[b]
            kind = "broken" if before == sample.label else "mended" if after == sample.label else "other"
            row = {"image": sample.image, "label": sample.label, "before": before, "after": after, "kind": kind}
            rows.append({**row, **({} if sample.text is None else {"group": sample.text})})
    return sorted(rows, key=lambda r: order[r["kind"]])


def _sentence(data: dict[str, Any], changes: Sequence[Change]) -> str:
    told = data["accuracy"]
    kinds = [f["kind"] for f in data["flips"]]
    verb = "raises" if told["difference"] > 0 else "lowers"
    effect = f"{verb} accuracy by {abs(told['difference']) * 100:.1f} points" if told["real"] else "moves no accuracy"
    low, high = told["interval"]
    subject = "The edit" if data["decides"] else "The edit, judged by what the words alone choose,"
    said = (
        f"{subject} changes {len(changes)} description(s) and {effect} for sure ({told['before']:.1%} to "
        f"{told['after']:.1%}, difference {low * 100:+.1f} to {high * 100:+.1f} points on {data['n']} pictures); "
        f"{len(kinds)} decision(s) turn over, {kinds.count('mended')} mended and {kinds.count('broken')} broken."
    ).replace(" for sure", "" if told["real"] else " that can be told from luck")
    gap = data["gap"]
    if gap is None:
        return said
    shown = "narrows" if gap["difference"] < 0 else "widens"
    how = f"{shown} it" if gap["real"] else "is not shown to change it"
    return f"{said} The gap between groups is {gap['before']:.1%} before and {gap['after']:.1%} after; the edit {how}."
