"""Do new pictures come from where the training pictures came from? By what a classifier keeps of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ...bounds import Bound, Count, InnerPart, check_fields
from ...classifiers.base import Classifier
from ...classifiers.known_pictures import KnownPictures, compact
from ...errors import DataError, InputError
from ...evaluation.figures import look_at
from ...metrics.calibration import accuracy_interval
from ...pictures.samples import Sample
from ...progress import Progress
from ...report.blocks import Document, Note, Section, Table, closing, points
from ...storage.features import FeatureStore
from ..bootstrap import figure, fisher, holm
from ..pages import parted
from ..study import Findings, beside

FAR = 0.05
"""Part of the training pictures that count as far from the others; as many new ones would, had nothing changed."""
N_SHOWN = 50


@dataclass(frozen=True)
class Drifted:
    p: float
    energy: float
    near: Float[Tensor, " n"]
    nearest: Int[Tensor, " n"]
    limit: float

    @property
    def far(self) -> Bool[Tensor, " n"]:
        return self.near < self.limit


@dataclass(frozen=True)
class DriftTest:
    """Energy distance (Székely & Rizzo 2013) of kept features, with a p value from permutations.

    ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` of unit vectors, the 128 numbers that a classifier keeps of every training
    picture (:mod:`seewhy.classifiers.known_pictures`), is compared with what it is when pictures change sides at
    random, so that at most ``alpha`` of sets from the same source are called changed. Pictures of one thing, all on
    one side, are not from the same source in this sense. Cost: one forward pass a picture, and a matrix of at most
    twice ``most`` pictures.

    Args:
        alpha: p value below which drift is reported.
        n_permutations: permutations of the test; the smallest possible p value is 1 / (n + 1).
        most: most pictures per side to use in the test.
        n_near: number of nearest training pictures whose cosines are averaged.
        seed: seed for the permutations.
    """

    alpha: InnerPart = 0.01
    n_permutations: Count = 999
    most: Annotated[int, Bound(10)] = 1000
    n_near: Count = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "The test")
        if self.alpha < (least := 1 / (self.n_permutations + 1)):
            raise InputError(f"alpha={self.alpha:g} was given. {least:g}, the least p value, was expected. Give more.")

    def compare(self, known: KnownPictures, pooled: Float[Tensor, "n d"]) -> Drifted:
        """Features of new pictures beside those that were fitted on."""
        generator = torch.Generator().manual_seed(self.seed)
        ours, places = _drawn(normalize(known.features.float(), dim=1), 4 * self.most, generator)
        new = normalize(compact(pooled).float(), dim=1)
        k = min(self.n_near, len(ours) - 1)
        own = (ours @ ours.T).fill_diagonal_(-1)
        limit = float(own.topk(k, 1).values.mean(1).quantile(FAR))
        near, first = (new @ ours.T).topk(k, 1)
        x, y = _drawn(ours, self.most, generator)[0], _drawn(new, self.most, generator)[0]
        both = torch.cat([x, y])
        apart = (2 - 2 * both @ both.T).clamp(min=0).sqrt()
        weights = torch.cat([torch.full((len(x),), 1 / len(x)), torch.full((len(y),), -1 / len(y))])
        orders = torch.stack([torch.randperm(len(both), generator=generator) for _ in range(self.n_permutations)])
        drawn = torch.cat([weights[None], weights[orders]])
        energies = -((drawn @ apart) * drawn).sum(1)
        as_much = int((energies[1:] >= energies[0] - 1e-7).sum())
        p = (1 + as_much) / (self.n_permutations + 1)
        return Drifted(p, float(energies[0]), near.mean(1), places[first[:, 0]], limit)

    def run(
        self,
        classifier: Classifier,
        pictures: Sequence[Sample],
        *,
        store: FeatureStore | None = None,
        progress: Progress | None = None,
    ) -> Findings:
        """Compare new pictures, whose classes need not be known, with those that a classifier was fitted on."""
        progress = progress or Progress()
        known = known_of(classifier)
        items, logits, pooled, _ = look_at(classifier, pictures, store, None, progress)
        if min(len(known.names), len(items)) < 10:
            raise DataError(
                f"{len(items)} pictures were given, and the classifier was fitted on {len(known.names)}. Ten of each, "
                "at least, were expected. Give more."
            )
        found, decided = self.compare(known, pooled), logits.argmax(1)
        farthest = [
            {
                "image": items[i].image, "label": classifier.classes[int(decided[i])],
                "cosine": round(float(found.near[i]), 4), "far": bool(found.far[i]),
                "nearest": known.names[int(found.nearest[i])],
            }
            for i in found.near.argsort()[:N_SHOWN].tolist()
        ]  # fmt: skip
        data = {
            "drift": "yes" if found.p < self.alpha else "no",
            "n": len(items), "n_known": len(known.names), "p": round(found.p, 5), "energy": round(found.energy, 5),
            "far": {**figure(found.far.float().mean(), accuracy_interval(found.far)), "expected": FAR},
            "classes": _classes(classifier, decided), "pictures": farthest,
            "settings": asdict(self), "model": classifier.provenance(), **beside(progress),
        }  # fmt: skip
        return Findings({"sentence": sentence(data), **data}, drift_page)


def known_of(classifier: Classifier) -> KnownPictures:
    """What a classifier keeps of its training pictures, if it can be compared."""
    if (known := classifier.known) is None:
        raise DataError(
            "The classifier keeps nothing of pictures that it was fitted on. One fitted on pictures was expected. Give "
            "those pictures with --against."
        )
    if known.encoder != classifier.encoder.fingerprint:
        raise DataError(
            "The pictures that the classifier was fitted on were looked at by another network, as its own was trained. "
            "Features of the same network were expected. Give those pictures with --against."
        )
    return known


def sentence(data: dict[str, Any]) -> str:
    far = data["far"]
    changed = [c for c in data["classes"] if c["p"] is not None and c["p"] < data["settings"]["alpha"]]
    low, high = far["interval"]
    lead = "differ from" if data["drift"] == "yes" else "do not show to differ from"
    most = "".join(f"; {c['label']}: {c['share']:.1%}, then {c['expected']:.1%}" for c in changed[:3])
    return (
        f"{data['n']} pictures {lead} the {data['n_known']} that it was fitted on (p = {data['p']:.3g}): "
        f"{far['value']:.1%} of them ({low:.1%} to {high:.1%}) are farther from these than {1 - FAR:.0%} of these are "
        f"from one another; {'no class is' if not changed else f'{len(changed)} classes are'} decided for more or less "
        f"often than it was there{most}."
    )


def _drawn(rows: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    index = torch.randperm(len(rows), generator=generator)[:most] if len(rows) > most else torch.arange(len(rows))
    return rows[index], index


def _classes(classifier: Classifier, decided: Int[Tensor, " n"]) -> list[dict[str, Any]]:
    """How often each class is decided for, and how often it was there where trust was measured."""
    trust, k = classifier.measured_trust, len(classifier.classes)
    n, counts = len(decided), decided.bincount(minlength=k).tolist()
    then = None if trust is None else trust.held.labels.bincount(minlength=k).tolist()
    rows = [
        {
            "label": label, "n": counts[i], "share": round(counts[i] / n, 4),
            "expected": None if then is None else round(then[i] / sum(then), 4),
            "p": None if then is None else fisher(counts[i], n, then[i], sum(then)),
        }
        for i, label in enumerate(classifier.classes)
    ]  # fmt: skip
    if then is not None:
        for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p"] = p
    return sorted(rows, key=lambda row: (1.0 if row["p"] is None else row["p"], -row["n"]))


def drift_page(data: dict[str, Any]) -> Document:
    how, (headline, rest) = data["settings"], parted(data["sentence"], ": ")
    farthest = [
        (row["image"], row["label"], f"{row['cosine']:.3f}", "far" if row["far"] else "", row["nearest"])
        for row in data["pictures"]
    ]
    classes = [
        (
            row["label"], row["n"], points(row["share"]), points(row["expected"]),
            None if row["p"] is None else f"{row['p']:.2g}",
        )
        for row in data["classes"]
    ]  # fmt: skip
    near = f"By the mean cosine with the {how['n_near']} nearest training pictures."
    then = (
        "How often each class is decided for, in per cent, and how often it was there among the pictures held out "
        "while fitting. Fisher's p values, corrected over all classes (Holm). A class may also change as "
        "decisions are wrong."
    )
    columns = ("picture", "decided for", "cosine", "far", "nearest of training")
    sections = [
        Section("The farthest pictures", [Note(near), Table(columns, farthest)]),
        Section("Class by class", [Note(then), Table(("class", "pictures", "now", "then", "p"), classes)]),
    ]
    rule = (
        f"Features that the model keeps of its training pictures, by energy distance with {how['n_permutations']} "
        f"permutations. There is drift where p is below {how['alpha']}."
    )
    above = f"Drift of {data['n']:,} pictures against {data['n_known']:,}"
    return Document("Drift", headline, [*sections, *closing(data)], above, (rest, rule))
