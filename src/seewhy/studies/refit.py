"""Measure the effect of corrected labels: fit classifiers on the old and on the new labels, and compare both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..classifiers.base import Classifier
from ..classifiers.certainty import trust_inputs
from ..classifiers.encoded_set import MAX_HELD_OUT, EncodedSet, HeldOut, evenly
from ..classifiers.linear.recipe import Linear
from ..encoders.base import Encoder
from ..encoders.stream import Encoded
from ..errors import DataError
from ..heads.head import Head
from ..pictures.samples import Sample
from ..progress import Progress
from ..report.blocks import Block, Cell, Document, Note, Picture, Section, Table, closing, pair, points
from ..report.page import percent
from ..trust.base import Trust
from ..trust.groups import Grouping, group_by_looks
from ..trust.measure import measure_trust
from .bootstrap import group_sums, paired, ratio
from .material import LEAST_PER_CLASS, Material
from .study import Findings, Row, beside

MOST_SHOWN = 200
"""Maximum number of listed pictures whose prediction changes."""
N_ALIKE = 5
N_DRAWS = 2000
"""Number of bootstrap resamples of the groups of pictures."""
RECIPE = Linear(n_crops=0)
"""The classifier to fit; C is chosen on the training folds."""
AT_ONCE = 4096
APPLIED = ("changed", "kept")
SIDES = ("the labels as given", "the labels as people decided")


@dataclass(frozen=True)
class Labels:
    """Class indices of the labels before and after the decisions of people; −1 for no label.

    Attributes:
        before: labels in the data.
        after: labels after the decisions; pictures without a decision keep their label.
        dropped: whether a person left the picture out; such pictures are used neither after the decisions nor for the
            test.
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
        """Apply the current decisions to all copies of a picture, as the corrected table does.

        A decision on a label that no copy has any longer is ignored.
        """
        number, bears = {name: k for k, name in enumerate(classes)}, set(zip(keys, labels, strict=True))
        after, dropped = [], []
        for label, key in zip(labels, keys, strict=True):
            one = decided.get(key, {})
            stands = one.get("decision") in APPLIED and (key, one.get("given")) in bears
            after.append(number.get(one["label"] if stands else label, -1))
            dropped.append(one.get("decision") == "left_out")
        return cls(torch.tensor([number.get(s, -1) for s in labels]), torch.tensor(after), torch.tensor(dropped))

    @property
    def n_changed(self) -> int:
        return int(((self.before != self.after) | (self.dropped & (self.before >= 0))).sum())


@dataclass(frozen=True)
class Fits:
    """The classifiers of a comparison and their training pictures, before (0) and after (1) the decisions.

    Attributes:
        heads: classifier heads before and after the decisions, one for each held-out fold.
        folds: fold of each picture, before and after.
        learnt: training label of each picture, before and after; −1 for pictures that were not used for training.
        trusts: reliability before and after, measured on the compared pictures and their current labels; the
            pictures, if they are too few for it.
    """

    encoder: Encoder
    classes: tuple[str, ...]
    heads: tuple[Mapping[int, Head], ...]
    folds: Int[Tensor, "2 n"]
    learnt: Int[Tensor, "2 n"]
    trusts: tuple[Trust | HeldOut, ...]

    def classifier(self, side: int, i: int) -> Classifier:
        """Return the classifier that was not trained on picture ``i``, without similar pictures as evidence."""
        n = int(self._seen(side, i).sum())
        about = f"{n:,} of your pictures, with {SIDES[side]}; this picture and those that look alike were held out"
        head, trust = self.heads[side][int(self.folds[side, i])], self.trusts[side]
        classifier = Classifier(RECIPE.name, RECIPE.parameters(), self.encoder, self.classes, head, trained_on=about)
        return replace(classifier, trust=trust) if isinstance(trust, Trust) else replace(classifier, held_out=trust)

    def alike(self, side: int, i: int, pooled: Callable[[Int[Tensor, " m"]], Float[Tensor, "m d"]]) -> list[int]:
        """Return the training pictures most similar to picture ``i``, the most similar first."""
        feature = self.heads[side][int(self.folds[side, i])].feature
        candidates = self._seen(side, i).nonzero()[:, 0]
        own = feature(pooled(torch.tensor([i])))[0]
        scores = torch.cat([feature(pooled(part)) @ own for part in candidates.split(AT_ONCE)])
        return candidates[scores.topk(min(N_ALIKE, len(candidates))).indices].tolist()

    def _seen(self, side: int, i: int) -> Bool[Tensor, " n"]:
        return (self.learnt[side] >= 0) & (self.folds[side] != self.folds[side, i])


def compare_labels(
    encoder: Encoder, pooled: Float[Tensor, "n d"], labels: Labels, classes: Sequence[str], names: Sequence[str],
    progress: Progress | None = None, n_folds: int = 5,
) -> tuple[Findings, Fits]:  # fmt: skip
    """Fit linear classifiers on the old and on the new labels, and test both on held-out pictures.

    This is a cross-validation in which similar-looking pictures are in the same fold. One classifier learns from the
    old labels. The other learns from the new labels, without the pictures that people left out. Both classifiers are
    tested on the new labels. In the result, ``names`` name the pictures.
    """
    progress = progress or Progress()
    if labels.n_changed == 0:
        raise DataError(
            "No label was changed and no picture was left out. Change a label, or leave a picture out, and start again."
        )
    keep = ((labels.after >= 0) & ~labels.dropped).nonzero()[:, 0]
    counts = labels.after[keep].bincount(minlength=len(classes))
    if int((counts >= LEAST_PER_CLASS).sum()) < 2:
        raise DataError(f"At least two classes must have {LEAST_PER_CLASS} labelled pictures. Add pictures.")
    grouping = group_by_looks(pooled, labels.after.clamp(min=0), [str(i) for i in range(len(pooled))])
    sides = [_fitted(encoder, pooled, labels, classes, grouping, side, n_folds, progress) for side in (0, 1)]
    heads, folds, learnt = zip(*sides, strict=True)
    tested = [_held_out(pooled, *side).argmax(1) for side in zip(heads, folds, strict=True)]
    right = torch.stack([(t[keep] == labels.after[keep]).double() for t in tested], 1)
    data = _findings(tested, right, grouping.groups[keep], keep, labels, classes, names, progress)
    data["settings"] = {"n_folds": n_folds, "n_draws": N_DRAWS, "seed": 0}
    some = keep[evenly(torch.ones_like(keep, dtype=torch.bool), MAX_HELD_OUT)]
    trusts = []
    for own, fold in zip(heads, folds, strict=True):
        logits = _held_out(pooled[some], own, fold[some])
        held = HeldOut(pooled[some], labels.after[some], logits, grouping.groups[some])
        classifier = Classifier(RECIPE.name, {}, encoder, tuple(classes), next(iter(own.values())))
        inputs = trust_inputs(classifier, held.pooled, logits)
        trusts.append(measure_trust(inputs, held.labels, held.groups, progress=progress) or held)
    fits = Fits(encoder, tuple(classes), heads, torch.stack(folds), torch.stack(learnt), tuple(trusts))
    return Findings(data, page), fits


def _fitted(
    encoder: Encoder, pooled: Float[Tensor, "n d"], labels: Labels, classes: Sequence[str],
    grouping: Grouping, side: int, n_folds: int, progress: Progress,
) -> tuple[dict[int, Head], Int[Tensor, " n"], Int[Tensor, " n"]]:  # fmt: skip
    """Return the heads by held-out fold, the fold of each picture, and the training labels."""
    own = labels.after if side else labels.before
    learn = (own >= 0) & ~labels.dropped if side else own >= 0
    items = [Sample(str(i), "") for i in range(len(pooled))]
    encoded = [Encoded(str(i), str(i), pooled[i : i + 1]) for i in range(len(pooled))]
    pictures = EncodedSet(items, encoded, tuple(classes), own.clamp(min=0), grouping=grouping)
    folds = pictures.with_folds(n_folds, 0).folds
    assert folds is not None
    material = Material(encoder, pictures, RECIPE)
    heads: dict[int, Head] = {}
    what = "Fitting with the decisions" if side else "Fitting without the decisions"
    for fold in progress.track(sorted(set(folds.tolist())), what, n_folds):
        chosen = (learn & (folds != fold)).nonzero()[:, 0]
        if len(own[chosen].unique()) < 2:
            raise DataError(
                "At least two classes must have pictures of several objects, because similar-looking pictures "
                "are held out together. Add pictures of other objects."
            )
        heads[fold], _ = material.fitted(material.part(chosen, own[chosen], classes, 0), None)
    return heads, folds, torch.where(learn, own, -1)


def _findings(
    tested: Sequence[Tensor], right: Float[Tensor, "n 2"], groups: Int[Tensor, " n"], keep: Int[Tensor, " n"],
    labels: Labels, classes: Sequence[str], names: Sequence[str], progress: Progress,
) -> Row:  # fmt: skip
    sums = group_sums(torch.stack([right, torch.ones_like(right)], 2), groups)
    resampled = paired(sums, ratio, n_draws=N_DRAWS)
    value, interval, real = resampled.difference(1, 0)
    truth = labels.after[keep]
    won, lost = ((right[:, 1] > right[:, 0]), (right[:, 1] < right[:, 0]))
    rows = [
        {"label": classes[k], "n": int(its.sum()), "before": int(right[its, 0].sum()),
         "after": int(right[its, 1].sum()), "won": int((won & its).sum()), "lost": int((lost & its).sum())}
        for k in truth.unique().tolist() for its in [truth == k]
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
        "study": "refit", "n": len(keep), "n_groups": len(sums), "n_changed": labels.n_changed,
        "before": resampled.figure(0), "after": resampled.figure(1),
        "difference": {"value": round(value, 4), "interval": [round(v, 4) for v in interval], "real": real},
        "won": int(won.sum()), "lost": int(lost.sum()),
        "classes": sorted(rows, key=lambda r: (r["lost"] - r["won"], r["label"])),
        "n_moved": len(changed), "changed": changed[:MOST_SHOWN], **beside(progress),
    }  # fmt: skip
    return {**data, "sentence": sentence(data)}


@torch.no_grad()
def _held_out(
    pooled: Float[Tensor, "n d"], heads: Mapping[int, Head], folds: Int[Tensor, " n"]
) -> Float[Tensor, "n k"]:
    """Return the out-of-fold logits of each picture."""
    logits = torch.zeros(len(pooled), len(next(iter(heads.values())).bias))
    for fold, head in heads.items():
        logits[folds == fold] = head(pooled[folds == fold])
    return logits


def sentence(data: Row) -> str:
    """Return a sentence that says whether the decisions helped."""
    before, after = (f"{100 * data[name]['value']:.1f} %" for name in ("before", "after"))
    gap = data["difference"]
    interval = pair(gap["interval"], sign=True)
    accuracies = f"{before} of held-out pictures were predicted correctly without the decisions, {after} with them"
    if not gap["real"]:
        return f"No gain is shown: {accuracies} ({interval} points)."
    kind = "The decisions helped" if gap["value"] > 0 else "The decisions made it worse"
    return f"{kind}: {accuracies} ({interval} points)."


def page(data: Row) -> Document:
    """Build the page: accuracy before and after, improved and worse classes, and changed predictions."""
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
            f"{data['n_changed']:,} pictures have a changed label or were left out. Both classifiers were tested on "
            f"the same {data['n']:,} pictures, each held out together with similar-looking pictures "
            f"({data['n_groups']:,} groups), and compared with the current labels."
        ),
    ]
    sections = [Section("Before and after", above)]
    if data["classes"]:
        columns = ("class", "pictures", "right before", "right after", "won", "lost")
        keys = ("label", "n", "before", "after", "won", "lost")
        table = Table(columns, [tuple(r[key] for key in keys) for r in data["classes"]])
        sections.append(Section("Classes that won and lost", [table]))
    if data["changed"]:
        moved = [(_picture(r), r["label"], r["before"], r["after"], _effect(r["effect"])) for r in data["changed"]]
        more = data["n_moved"] - len(moved)
        blocks: list[Block] = [Note("Choose a picture to see both cards.")] if "card" in data["changed"][0] else []
        blocks.append(Table(("picture", "label", "before", "after", "effect"), moved))
        blocks += [Note(f"{more:,} more are not shown.")] if more > 0 else []
        sections.append(Section("Pictures whose prediction changed", blocks))
    figures = f"{rest[:1].upper()}{rest[1:]}"
    return Document("Did the decisions help?", f"{first}.", [*sections, *closing(data)], "Before and after", (figures,))


def _picture(row: Mapping[str, Any]) -> Any:
    """Return the file name, or a thumbnail with a link to both cards if there are cards."""
    image, card = row["image"], row.get("card")
    if card is None:
        return image
    return Cell(pictures=[Picture(row["thumbnail"], f"Both cards of {image}", href=card)], small=[image])


def _effect(effect: str) -> Cell:
    return Cell(effect, colour="good" if effect == "won" else "bad" if effect == "lost" else "")
