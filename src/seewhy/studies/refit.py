"""Did the corrected labels help? Classifiers fitted without and with them, on pictures that neither learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bounds import Bound, check_fields
from ..classifiers.encoded_set import EncodedSet
from ..classifiers.linear.recipe import Linear
from ..encoders.base import Encoder
from ..encoders.stream import Encoded
from ..errors import DataError
from ..pictures.samples import Sample
from ..progress import Progress
from ..report.blocks import Block, Document, Note, Section, Table, closing, pair, points
from ..report.page import percent
from ..trust.groups import Grouping, group_by_looks
from .bootstrap import paired
from .material import LEAST_PER_CLASS, Material
from .study import Findings, Row, beside

MOST_SHOWN = 200
"""Pictures whose prediction changes."""
APPLIED = ("corrected", "confirmed")


@dataclass(frozen=True)
class Labels:
    """Labels before and after people decided, as numbers of classes; −1 for none.

    Attributes:
        before: as the data give them.
        after: as people decided; those that nobody decided on keep theirs.
        dropped: left out by somebody, so neither learnt from with the decisions nor tested on.
    """

    before: Int[Tensor, " n"]
    after: Int[Tensor, " n"]
    dropped: Bool[Tensor, " n"]

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        keys: Sequence[str],
        decided: Mapping[str, Mapping[str, Any]],
        classes: Sequence[str],
    ) -> Labels:
        """By the standing decisions; one on a label that the data no longer give is not applied."""
        number = {name: k for k, name in enumerate(classes)}
        after, dropped = [], []
        for label, key in zip(labels, keys, strict=True):
            one = decided.get(key, {})
            stands = one.get("decision") in APPLIED and one.get("given") == label
            after.append(number.get(one["label"] if stands else label, -1))
            dropped.append(one.get("decision") == "dropped")
        return cls(torch.tensor([number.get(s, -1) for s in labels]), torch.tensor(after), torch.tensor(dropped))

    @property
    def n_changed(self) -> int:
        return int(((self.before != self.after) | self.dropped).sum())


@dataclass(frozen=True)
class RefitStudy:
    """Fit the linear classifier on the labels as they were and as they are now, and test both on held-out pictures.

    The pictures are cut into parts, similar-looking ones in the same part. Each part in turn is held out, and both
    classifiers learn from the rest: one from the labels before, one from the labels after, without those left out.
    Both are tested against the labels after. So a gain is never a label that merely counts as right again.

    Args:
        n_folds: parts.
        recipe: what is fitted; C is chosen within the pictures that are learnt from.
        n_draws: resampled sets for the interval; groups are drawn whole.
        seed: of the parts and of resampling.
    """

    n_folds: Annotated[int, Bound(2)] = 5
    recipe: Linear = field(default_factory=lambda: Linear(n_crops=0))
    n_draws: Annotated[int, Bound(100)] = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "The comparison")

    def run(
        self,
        encoder: Encoder,
        pooled: Float[Tensor, "n d"],
        labels: Labels,
        classes: Sequence[str],
        names: Sequence[str],
        progress: Progress | None = None,
    ) -> Findings:
        """Fit and test; ``names`` are what the pictures are called in the result."""
        progress = progress or Progress()
        if labels.n_changed == 0:
            raise DataError("No label was changed and no picture left out. Decide on some pictures first.")
        keep = ((labels.after >= 0) & ~labels.dropped).nonzero()[:, 0]
        counts = labels.after[keep].bincount(minlength=len(classes))
        if int((counts >= LEAST_PER_CLASS).sum()) < 2:
            raise DataError(
                f"Fewer than two classes have {LEAST_PER_CLASS} labelled pictures. Expected two or more. Add pictures."
            )
        grouping = group_by_looks(pooled, labels.after.clamp(min=0), [str(i) for i in range(len(pooled))])
        tested = [self._tested(encoder, pooled, labels, classes, grouping, part, progress) for part in (0, 1)]
        right = torch.stack([(t[keep] == labels.after[keep]).double() for t in tested], 1)
        groups = grouping.groups[keep].unique(return_inverse=True)[1]
        return Findings(self._findings(tested, right, groups, keep, labels, classes, names, progress), page)

    def _tested(
        self, encoder: Encoder, pooled: Float[Tensor, "n d"], labels: Labels, classes: Sequence[str],
        grouping: Grouping, part: int, progress: Progress,
    ) -> Int[Tensor, " n"]:  # fmt: skip
        """What a classifier that did not learn from a picture predicts; of the labels before (0) or after (1)."""
        own = labels.after if part else labels.before
        learn = (own >= 0) & ~labels.dropped if part else own >= 0
        items = [Sample(str(i), "") for i in range(len(pooled))]
        encoded = [Encoded(str(i), str(i), pooled[i : i + 1]) for i in range(len(pooled))]
        pictures = EncodedSet(items, encoded, tuple(classes), own.clamp(min=0), grouping=grouping)
        folds = pictures.with_folds(self.n_folds, self.seed).folds
        assert folds is not None
        material = Material(encoder, pictures, replace(self.recipe, seed=self.seed))
        found = torch.full((len(pooled),), -1)
        what = "Fitting with the decisions" if part else "Fitting without them"
        for fold in progress.track(sorted(set(folds.tolist())), what, self.n_folds):
            chosen = (learn & (folds != fold)).nonzero()[:, 0]
            head, _ = material.fitted(material.part(chosen, own[chosen], classes, self.seed), None)
            out = folds == fold
            with torch.no_grad():
                found[out] = head(pooled[out]).argmax(1)
        return found

    def _findings(
        self, tested: Sequence[Tensor], right: Float[Tensor, "n 2"], groups: Int[Tensor, " n"], keep: Int[Tensor, " n"],
        labels: Labels, classes: Sequence[str], names: Sequence[str], progress: Progress,
    ) -> Row:  # fmt: skip
        n_groups = int(groups.max()) + 1
        columns = torch.stack([right, torch.ones_like(right)], 2)
        sums = torch.zeros(n_groups, 2, 2, dtype=torch.double).index_add(0, groups, columns)
        found = paired(sums, lambda means: means[..., 0] / means[..., 1], n_draws=self.n_draws, seed=self.seed)
        value, interval, real = found.difference(1, 0)
        truth = labels.after[keep]
        won, lost = ((right[:, 1] > right[:, 0]), (right[:, 1] < right[:, 0]))
        rows = [
            {"label": classes[k], "n": int((truth == k).sum()), "won": int((won & (truth == k)).sum()),
             "lost": int((lost & (truth == k)).sum())}
            for k in truth.unique().tolist()
        ]  # fmt: skip
        rows = [r for r in rows if r["won"] or r["lost"]]
        moved = (tested[0] != tested[1])[keep].nonzero()[:, 0].tolist()
        changed = [
            {"index": int(keep[i]), "image": names[int(keep[i])], "label": classes[int(truth[i])],
             "before": classes[int(tested[0][keep[i]])], "after": classes[int(tested[1][keep[i]])],
             "effect": "won" if bool(won[i]) else "lost" if bool(lost[i]) else "neither"}
            for i in sorted(moved, key=lambda i: (not bool(lost[i]), not bool(won[i]), i))
        ]  # fmt: skip
        data: Row = {
            "study": "refit", "n": len(keep), "n_groups": n_groups, "n_changed": labels.n_changed,
            "before": found.figure(0), "after": found.figure(1),
            "difference": {"value": round(value, 4), "interval": [round(v, 4) for v in interval], "real": real},
            "won": int(won.sum()), "lost": int(lost.sum()),
            "classes": sorted(rows, key=lambda r: (r["lost"] - r["won"], r["label"])),
            "n_moved": len(changed), "changed": changed[:MOST_SHOWN],
            "settings": {"n_folds": self.n_folds, "n_draws": self.n_draws, "seed": self.seed}, **beside(progress),
        }  # fmt: skip
        return {**data, "sentence": sentence(data)}


def sentence(data: Row) -> str:
    """Whether it helped."""
    before, after = (f"{100 * data[name]['value']:.1f} %" for name in ("before", "after"))
    gap = data["difference"]
    low, high = (f"{100 * v:+.1f}".replace("-", "−") for v in gap["interval"])
    told = f"{before} of held-out pictures were predicted correctly without the decisions, {after} with them"
    if not gap["real"]:
        return f"No gain is shown: {told} ({low} to {high} points)."
    kind = "The decisions helped" if gap["value"] > 0 else "The decisions made it worse"
    return f"{kind}: {told} ({low} to {high} points)."


def page(data: Row) -> Document:
    """Accuracy before and after, classes that won and lost, and pictures whose prediction changed."""
    first, _, rest = data["sentence"].partition(": ")
    rows = [
        (name, percent(data[key]["value"]), pair(data[key]["interval"]))
        for name, key in (("labels as given", "before"), ("with the decisions", "after"))
    ]
    gap = data["difference"]
    rows.append(("difference, points", points(gap["value"]), pair(gap["interval"])))
    above: list[Block] = [
        Table(("learnt from", "right", "95 %"), rows),
        Note(
            f"{data['n_changed']:,} labels were changed or pictures left out. Both classifiers were tested on the same "
            f"{data['n']:,} pictures, each held out with those that look alike ({data['n_groups']:,} groups), against "
            "the labels as they are now."
        ),
    ]
    sections = [Section("Before and after", above)]
    if data["classes"]:
        table = Table(("class", "pictures", "won", "lost"), [tuple(r.values()) for r in data["classes"]])
        sections.append(Section("Classes that won and lost", [table]))
    if data["changed"]:
        moved = [(r["image"], r["label"], r["before"], r["after"], r["effect"]) for r in data["changed"]]
        more = data["n_moved"] - len(moved)
        blocks: list[Block] = [Table(("picture", "label", "before", "after", ""), moved)]
        blocks += [Note(f"{more:,} more are not shown.")] if more > 0 else []
        sections.append(Section("Pictures whose prediction changed", blocks))
    figures = f"{rest[:1].upper()}{rest[1:]}"
    return Document("Did the decisions help?", f"{first}.", [*sections, *closing(data)], "Before and after", (figures,))
