"""Drift: a test of whether new pictures differ from the training pictures of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any

import numpy as np
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
from ...pictures.images import pixels_of
from ...pictures.samples import Sample, some
from ...progress import Progress
from ...report.blocks import Block, Document, Facts, Fold, Note, Picture, Pictures, Section, Table, closing, points
from ...report.page import file_name, render_document
from ...storage.features import FeatureStore
from ..bootstrap import figure, fisher, holm
from ..pages import parted
from ..study import Findings, beside

FAR = 0.05
"""Share of the training pictures that count as unlike the others."""
N_SHOWN = 50
"""Number of most unusual pictures in the JSON and on the page."""
N_LISTED = 10
"""Number of most unusual pictures in a terminal."""
Read = Callable[[str], np.ndarray | None]


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
    """Permutation test of the energy distance between features (Székely & Rizzo 2013).

    The features are unit vectors of 128 numbers, which a classifier stores of its training pictures
    (:mod:`seewhy.classifiers.known_pictures`). The energy distance is::

        2 E|X - Y| - E|X - X'| - E|Y - Y'|

    where ``X`` and ``X'`` are features of two new pictures, and ``Y`` and ``Y'`` those of two training pictures. If
    nothing changed, the probability that drift is reported is at most ``alpha``. This is not true for series of shots
    of the same object. The test takes a forward pass per picture and a distance matrix of at most ``2 * most``
    pictures.

    Args:
        alpha: drift is reported if the p value is below ``alpha``.
        n_permutations: number of permutations; the smallest possible p value is ``1 / (n_permutations + 1)``.
        most: largest number of pictures on each side of the test.
        n_near: number of nearest training pictures whose cosines are averaged.
        seed: seed of the permutations.
    """

    alpha: InnerPart = 0.01
    n_permutations: Count = 999
    most: Annotated[int, Bound(10)] = 1000
    n_near: Count = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "the test")
        if self.alpha < (least := 1 / (self.n_permutations + 1)):
            raise InputError(f"`alpha` must be at least {least:g}, the smallest possible p value, got {self.alpha:g}.")

    def compare(self, known: KnownPictures, pooled: Float[Tensor, "n d"]) -> Drifted:
        """Compare the features of new pictures with those of the training pictures."""
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
    ) -> Drift:
        """Compare new pictures, which need no labels, with the training pictures of a classifier."""
        progress = progress or Progress()
        known = known_of(classifier)
        seen, logits = look_at(classifier, pictures, store, None, progress)
        items = seen.items
        if min(len(known.names), len(items)) < 10:
            raise DataError(
                f"At least 10 new pictures and 10 training pictures are needed, got {len(items)} and "
                f"{len(known.names)}. For single pictures, use seewhy explain."
            )
        found, decided = self.compare(known, seen.pooled), logits.argmax(1)
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
            "n": len(items), "n_known": len(known.names),
            "n_fitted_on": sum(digest in known.by_digest for digest in seen.digests),
            "p": round(found.p, 5), "energy": round(found.energy, 5),
            "far": {**figure(found.far.float().mean(), accuracy_interval(found.far)), "expected": FAR},
            "classes": _classes(classifier, decided), "pictures": farthest,
            "settings": asdict(self), "model": classifier.provenance(), **beside(progress),
        }  # fmt: skip
        read = partial(pixels_of, transform=classifier.encoder.transform)
        return Drift({"sentence": sentence(data), **data}, read=read)


def known_of(classifier: Classifier) -> KnownPictures:
    """Return the stored features of the training pictures.

    Raises:
        DataError: the classifier has no stored features, or they are from another encoder.
    """
    if (known := classifier.known) is None:
        raise DataError(
            "The classifier has no features of its training pictures. Give its training pictures with --against."
        )
    if known.encoder != classifier.encoder.fingerprint:
        raise DataError(
            "The features of the training pictures are from another state of the encoder. Give the training pictures "
            "with --against."
        )
    return known


def sentence(data: dict[str, Any]) -> str:
    far, (low, high) = data["far"], data["far"]["interval"]
    new, known = f"the {data['n']:,} new pictures", f"the {data['n_known']:,} training pictures"
    said = [f"{data['n_fitted_on']:,} of {new} are training pictures, so they hide differences."] * bool(
        data["n_fitted_on"]
    )
    said.append(
        f"T{new[1:]} differ from {known}."
        if data["drift"] == "yes"
        else f"No difference was found between {new} and {known}."
    )
    said.append(
        f"{points(far['value'])} % of the new pictures ({points(low)} to {points(high)} %) are unlike the training "
        f"pictures; {FAR * 100:.0f} % would be expected."
    )
    if any(c["p"] is not None for c in data["classes"]):
        changed = [
            f"{c['label']} ({points(c['share'])} %, in training {points(c['expected'])} %)" for c in _changed(data)
        ]
        which = some(changed, 3) if changed else "none"
        said.append(f"Classes predicted more or less often than in training: {which}.")
    said.append(f"The p value of the test for a difference is {data['p']:.3g}.")
    return " ".join(said)


def _changed(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [c for c in data["classes"] if c["p"] is not None and c["p"] < data["settings"]["alpha"]]


def todo(data: dict[str, Any]) -> str:
    if data["n_fitted_on"]:
        return "Leave out the training pictures, and test again."
    if data["drift"] == "yes":
        return (
            "Look at the most unusual pictures. If they show your classes, label some of them and fit again. "
            "Otherwise, do not give such pictures to the model."
        )
    if _changed(data):
        return "Check whether these classes have become more or less frequent, or are predicted wrongly."
    if data["far"]["interval"][0] > FAR:
        return (
            "More pictures than expected are unlike the training pictures. Check the predictions of the pictures below."
        )
    return "No action is needed."


def _drawn(rows: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    index = torch.randperm(len(rows), generator=generator)[:most] if len(rows) > most else torch.arange(len(rows))
    return rows[index], index


def _classes(classifier: Classifier, decided: Int[Tensor, " n"]) -> list[dict[str, Any]]:
    """Return how often each class is predicted for the new pictures and for the held-out pictures of the fit."""
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


def drift_page(data: dict[str, Any], read: Read | None = None) -> Document:
    """Build the page; without ``read``, pictures are listed by name."""
    headline, rest = parted(data["sentence"])
    shown = data["pictures"] if read else data["pictures"][:N_LISTED]
    most = f"The {len(shown)} most unusual of {data['n']:,} pictures. " if len(shown) < data["n"] else ""
    lead = Note(f"{most}Most unusual first. In brackets: cosine similarity to the training pictures.")
    if read is None:
        listed = Facts({row["image"]: ", ".join(_reason(row)) for row in shown})
        sections = [Section("The most unusual pictures", [lead, listed])]
        sections += [Section("Predicted classes", _by_class(data))] if _changed(data) else []
    else:
        tiles = [
            Picture(read(row["image"]), row["image"], (file_name(row["image"]), *_reason(row)), title=row["image"])
            for row in shown
        ]
        by_class = Fold("How often each class is predicted", _by_class(data), bool(_changed(data)))
        sections = [
            Section("The most unusual pictures", [lead, Pictures(tiles, "sheet"), Fold("Figures", _figures(data))]),
            Section("Predicted classes", [by_class]),
        ]
    above = f"Drift of {data['n']:,} pictures against {data['n_known']:,}"
    return Document("Drift", headline, [Note(todo(data), "next"), *sections, *closing(data, "Notes")], above, (rest,))


def _reason(row: dict[str, Any]) -> tuple[str, str]:
    kind = "unlike" if row["far"] else "like"
    return f"{kind} training ({row['cosine']:.2f})", f"predicted {row['label']}"


def _figures(data: dict[str, Any]) -> list[Block]:
    how = data["settings"]
    columns = ("picture", "prediction", "similarity", "", "most similar training picture")
    rows = [
        (row["image"], row["label"], f"{row['cosine']:.3f}", "unlike" if row["far"] else "", row["nearest"])
        for row in data["pictures"]
    ]
    near = (
        f"Similarity is the mean cosine with the {how['n_near']} nearest training pictures. A picture is unlike the "
        f"training pictures if {100 * (1 - FAR):.0f} % of them have a higher similarity to the other training pictures."
    )
    rule = (
        f"p is the share of {how['n_permutations']} permutations whose energy distance is as large. The new pictures "
        f"differ from the training pictures if p is below {how['alpha']}."
    )
    return [Note(near), Note(rule), Table(columns, rows)]


def _by_class(data: dict[str, Any]) -> list[Block]:
    rows = [
        (
            row["label"], row["n"], points(row["share"]), points(row["expected"]),
            None if row["p"] is None else f"{row['p']:.2g}",
        )
        for row in data["classes"]
    ]  # fmt: skip
    then = (
        "Share of each class, in per cent: among the new predictions, and among the labels of the held-out pictures of "
        "the fit. The p values are from Fisher's test, corrected over all classes (Holm). Wrong predictions change "
        "these shares too."
    )
    return [Note(then), Table(("class", "pictures", "now, %", "in training, %", "p"), rows)]


@dataclass(frozen=True, repr=False)
class Drift(Findings):
    """Result of a drift test; ``read`` loads a picture by its name."""

    page: Callable[[dict[str, Any]], Document] = field(default=drift_page, compare=False)
    read: Read = field(default=lambda _name: None, compare=False)

    def to_html(self) -> str:
        return render_document(drift_page(self.data, self.read))
