"""What each program says of a planted set: pictures that it names, and pictures in its order, by kind of fault.

A set is a folder with ``set.json`` (one row per picture), ``features.npy`` (unit length) and ``probabilities.npy``
(held out), as :mod:`audit_peers` leaves it. Nothing of SeeWhy is imported unless its own program is run, so that peers
may live in environments of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Planted:
    """A planted set.

    Attributes:
        folder: where it lies.
        rows: of each picture ``image``, ``label``, ``split`` and ``planted``, the fault or nothing.
        classes: in the order of the probabilities.
    """

    folder: Path
    rows: list[dict[str, str]]
    classes: list[str]

    @classmethod
    def load(cls, folder: Path) -> Planted:
        found = json.loads((folder / "set.json").read_text("utf-8"))
        return cls(folder, found["rows"], found["classes"])

    @cached_property
    def images(self) -> list[str]:
        return [str(self.folder / row["image"]) for row in self.rows]

    @cached_property
    def features(self) -> np.ndarray:
        return np.load(self.folder / "features.npy").astype(np.float64)

    @cached_property
    def probabilities(self) -> np.ndarray:
        return np.load(self.folder / "probabilities.npy").astype(np.float64)


@dataclass
class Answers:
    """What a program says.

    Attributes:
        named: pictures that it calls faulty, by kind.
        order: pictures from the most to the least doubtful, by kind.
        told: figures of the whole set.
    """

    named: dict[str, list[str]] = field(default_factory=dict)
    order: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)

    def add(self, kind: str, named: Sequence[str] | None, order: Sequence[str] | None = None) -> None:
        if named is not None:
            self.named[kind] = list(named)
        if order is not None:
            self.order[kind] = list(order)


def seewhy_audit(planted: Planted) -> Answers:
    """``seewhy.audit`` with the written contract, no card made, and the test of drift."""
    import seewhy
    from seewhy.pictures.samples import Sample, gathered
    from seewhy.storage.features import FeatureStore
    from seewhy.studies.auditing.drift import DriftTest

    items = {
        split: [Sample(i, r["label"]) for i, r in zip(planted.images, planted.rows, strict=True) if r["split"] == split]
        for split in ("train", "test")
    }
    store = FeatureStore()
    classifier = seewhy.fit(gathered(items["train"]), store=store)
    found = seewhy.audit(classifier, gathered(items["test"]), store=store, n_explained=0)
    clean = [s for s, r in zip(items["test"], _test(planted), strict=True) if not r["planted"]]
    told = Answers()
    copies = sorted(found.data["copies"], key=lambda row: -(row["cosine"] or 2))
    told.add("same file", [row["image"] for row in copies if row["same_bytes"]])
    told.add("copy", [row["image"] for row in copies if not row["same_bytes"]], [row["image"] for row in copies])
    drift = DriftTest().run(classifier, items["test"], store=store)
    told.add("nothing", [p["image"] for p in drift.data["pictures"] if p["far"]],
             [p["image"] for p in drift.data["pictures"]])  # fmt: skip
    told.told = {
        "drift_p": drift.data["p"],
        "drift_p_clean": DriftTest().run(classifier, clean, store=store).data["p"],
        "figures": {row["name"]: [row["state"], row["value"]] for row in found.data["figures"]},
    }
    return told


def seewhy_check(planted: Planted) -> Answers:
    """``seewhy check`` on all pictures of both splits."""
    from seewhy.encoders.find import encoder
    from seewhy.pictures.samples import Sample, gathered
    from seewhy.storage.features import FeatureStore
    from seewhy.studies.inspection.check import Check

    samples = gathered([Sample(i, r["label"]) for i, r in zip(planted.images, planted.rows, strict=True)])
    told = Answers()
    for by, kind in (("odds", "label"), ("confident", "label, by confident learning")):
        found = Check(by=by).run(encoder("lite0"), samples, store=FeatureStore()).data["findings"]
        rows = [row for row in found if row["kind"] in ("label", "contradiction")]
        told.add(kind, [row["image"] for row in rows], [row["image"] for row in rows])
    kinds = {"outlier": "nothing", "copy": "copy", "dark": "dark", "blurred": "blurred", "blank": "blank"}
    for name, kind in kinds.items():
        both = [[row["image"], *row["with"]] if name == "copy" else [row["image"]] for row in found
                if row["kind"] == name]  # fmt: skip
        told.add(kind, [image for images in both for image in images])
    return told


def datalab(planted: Planted) -> Answers:
    """cleanlab's Datalab with its defaults, on features and held-out probabilities."""
    from cleanlab import Datalab

    lab = Datalab({"label": [row["label"] for row in planted.rows]}, label_name="label", verbosity=0)
    lab.find_issues(features=planted.features, pred_probs=planted.probabilities)
    issues, told = lab.get_issues(), Answers()
    for name, kind in (("label", "label"), ("outlier", "nothing"), ("near_duplicate", "copy")):
        named = [planted.images[i] for i in np.flatnonzero(issues[f"is_{name}_issue"])]
        order = np.argsort(issues[f"{name}_score"].to_numpy(), kind="stable")
        told.add(kind, named, [planted.images[i] for i in order])
    told.add("same file", told.named["copy"])
    summary = lab.get_issue_summary()
    told.told = {row["issue_type"]: [round(row["score"], 4), row["num_issues"]] for _, row in summary.iterrows()}
    return told


def cleanvision(planted: Planted) -> Answers:
    """cleanvision with its defaults, on the files."""
    from cleanvision import Imagelab

    lab = Imagelab(filepaths=planted.images)
    lab.find_issues(n_jobs=1, verbose=False)
    told = Answers()
    for name, kind in (("dark", "dark"), ("blurry", "blurred"), ("low_information", "blank")):
        scores = lab.issues[f"{name}_score"].sort_values(kind="stable")
        told.add(kind, list(lab.issues.index[lab.issues[f"is_{name}_issue"]]), list(scores.index))
    for name, kind in (("exact_duplicates", "same file"), ("near_duplicates", "copy")):
        told.add(kind, list(lab.issues.index[lab.issues[f"is_{name}_issue"]]))
    told.told = {row["issue_type"]: int(row["num_images"]) for _, row in lab.issue_summary.iterrows()}
    return told


def fiftyone(planted: Planted) -> Answers:
    """fiftyone-brain with its defaults, on the same features and probabilities."""
    import fiftyone as fo
    import fiftyone.brain as fob

    data = fo.Dataset()
    try:
        best = planted.probabilities.argmax(1)
        data.add_samples([
            fo.Sample(
                image, tags=[row["split"]], truth=fo.Classification(label=row["label"]),
                said=fo.Classification(label=planted.classes[best[i]], confidence=float(planted.probabilities[i].max()),
                                       logits=np.log(planted.probabilities[i].clip(1e-12))),
            )
            for i, (image, row) in enumerate(zip(planted.images, planted.rows, strict=True))
        ])  # fmt: skip
        ids = dict(zip(data.values("id"), planted.images, strict=True))
        told = Answers()
        fob.compute_mistakenness(data, "said", label_field="truth", use_logits=True)
        fob.compute_uniqueness(data, embeddings=planted.features)
        for name, kind in (("mistakenness", "label"), ("uniqueness", "nothing")):
            scores = dict(zip(planted.images, data.values(name), strict=True))
            told.add(kind, None, sorted(scores, key=lambda image: -scores[image]))
        same = fob.compute_exact_duplicates(data)
        told.add("same file", [ids[i] for first, others in same.items() for i in (first, *others)])
        near = fob.compute_near_duplicates(data, embeddings=planted.features)
        told.add("copy within the data", [ids[i] for i in near.duplicate_ids])
        leaks = fob.compute_leaky_splits(data, ["train", "test"], embeddings=planted.features)
        told.add("copy", [ids[i] for i in leaks.leak_ids], _nearest(near, ids))
        told.told = {"near duplicates": len(near.duplicate_ids), "threshold": near.thresh}
        return told
    finally:
        data.delete()


def _nearest(index: Any, ids: dict[str, str]) -> list[str]:
    """Pictures by the distance of what FiftyOne calls their duplicate, the nearest first."""
    pairs = [(d, ids[i], ids[j]) for i, others in index.neighbors_map.items() for j, d in others]
    return list(dict.fromkeys(image for _, *both in sorted(pairs) for image in both))


def _test(planted: Planted) -> list[dict[str, str]]:
    return [row for row in planted.rows if row["split"] == "test"]


PROGRAMS: dict[str, tuple[Callable[[Planted], Answers], tuple[str, ...]]] = {
    "seewhy audit": (seewhy_audit, ("seewhy", "torch")),
    "seewhy check": (seewhy_check, ("seewhy", "torch")),
    "Datalab": (datalab, ("cleanlab", "datasets")),
    "cleanvision": (cleanvision, ("cleanvision",)),
    "FiftyOne": (fiftyone, ("fiftyone",)),
}
"""Each program, and the modules that it needs."""
