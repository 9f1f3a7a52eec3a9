"""``seewhy.audit``: does a classifier keep what a contract asks of it?"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch

from ...arguments import checked
from ...bounds import Natural
from ...classifiers.base import Classifier
from ...classifiers.known_pictures import KnownPictures
from ...errors import DataError
from ...evaluation.figures import look_at
from ...pictures.object_masks import MaskSource
from ...pictures.samples import Sample, Samples, load_samples, some
from ...printable import printable
from ...progress import Progress
from ...report.blocks import Block, Cell, Colour, Document, Facts, Note, Section, Table, closing, pair, points
from ...storage.features import FeatureStore
from ..pages import between, parted
from ..study import Findings, beside
from . import figures  # noqa: F401  (registers them)
from .contract import CHECKS, ENDS, Contract, Figure, Material

MOST_SHOWN = 50


def audit_page(data: dict[str, Any]) -> Document:
    """Does it keep the contract: every figure with its interval, limit, state and what it means."""
    headline, rest = parted(data["sentence"], "; " if data["audit"] == "pass" else ": ")
    order = {"fail": 0, "not measured": 1, "pass": 2}
    rows = sorted(data["figures"], key=lambda row: (not row["broken"], order[row["state"]]))
    columns = ("figure", "state", "measured", "judged", "asked for", "what it means")
    blocks: list[Block] = [Section("Figure by figure", [Table(columns, [_figure_line(row) for row in rows])])]
    if data["groups"]:
        lead = (
            "In per cent. Intervals hold for all groups together (Bonferroni); p values are Fisher's, corrected over "
            "the groups (Holm). Groups that are too small have neither."
        )
        lines = [
            (
                row["group"], row["n"], points(row["accuracy"]), points(row["accuracy_rest"]),
                None if row["gap"] is None else Cell(points(row["gap"], True), [pair(row["interval"])]),
                None if row["p"] is None else f"{row['p']:.2g}",
            )
            for row in data["groups"]
        ]  # fmt: skip
        head = ("group", "pictures", "right", "right on all others", "others less this group", "p")
        blocks.append(Section("Group by group", [Note(lead), Table(head, lines)]))
    if copies := data["copies"]:
        facts = {}
        for one in copies[:MOST_SHOWN]:
            agree = "" if one["agreement"] is None else f", agreement {one['agreement']:.3f}"
            how = "the same file as" if one["same_bytes"] else "a near copy of"
            facts[one["image"]] = f"{how} {one['fitted_on']}{agree}"
        more = len(copies) - MOST_SHOWN
        rest_of = [Note(f"and {more} more, in the JSON.")] if more > 0 else []
        blocks.append(Section("Pictures that it was fitted on", [Facts(facts), *rest_of]))
    n = data["n"]
    state = "Passed" if data["audit"] == "pass" else "Failed"
    above = f"Audit on {n:,} picture{'s' * (n != 1)}"
    below = (rest, f"Contract: {data['contract']}. Intervals at 95 %.")
    return Document("Audit", f"{state}. {headline}", [*blocks, *closing(data)], above, below)


def _figure_line(row: Mapping[str, Any]) -> tuple[Any, ...]:
    colour: Colour = "bad" if row["broken"] else "good" if row["state"] == "pass" else ""
    required = [] if row["state"] == "pass" else ["and required" if row["broken"] else "and not required"]
    measured = None
    if row["value"] is not None:
        around = [between(row["interval"])] if row["interval"] else []
        measured = Cell(f"{row['value']:.3f}".replace("-", "−"), [*around, f"n = {row['n']}"])
    level = [f"verdict {row['limit']['level']} or better"] if "level" in row["limit"] else []
    return (
        Cell(row["title"], [row["name"]]), Cell(row["state"], required, colour), measured, row["judged_by"] or "–",
        Cell(row["asked"].partition(",")[0], level), row["meaning"],
    )  # fmt: skip


@dataclass(frozen=True, repr=False)
class Audit(Findings):
    """What an audit found; ``data`` is the documented JSON (docs/json.md)."""

    @property
    def passed(self) -> bool:
        return bool(self.data["audit"] == "pass")

    def to_junit(self) -> str:
        """As JUnit XML, one test case a figure."""
        return junit(self.data)


@checked
def audit(
    classifier: Classifier,
    samples: Annotated[Samples | str | Path, "checked where it is read"],
    *,
    contract: Contract | str | Path | None = None,
    group: str | None = None,
    train: Annotated[Samples | str | Path | None, "checked where it is read"] = None,
    masks: Annotated[MaskSource | None, "whoever draws them"] = None,
    n_explained: Natural = 32,
    store: FeatureStore | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Does a classifier keep what a contract asks of it, on pictures that it was not fitted on?

    Args:
        classifier: what is audited.
        samples: labelled pictures, or where they are.
        contract: what it must keep, or the TOML file that says so; left out, :meth:`Contract.preset`, in which what
            ``group``, ``train`` and ``masks`` are given for is required.
        group: a table's column that names a part of the pictures; for class folders ``"folder"``.
        train: the pictures that it was fitted on, where it does not know them itself.
        masks: where the objects are (:mod:`seewhy.pictures.object_masks`), to ask about the background.
        n_explained: pictures drawn at random whose explanations are measured.
        store: where looks are kept.
        seed: of every draw.
        progress: callback for progress and failures.

    Raises:
        DataError: a label is none of its classes, no picture can be read, or the contract makes no sense.
    """
    progress = progress or Progress()
    if not isinstance(contract, Contract):
        given = {"group_gap": group, "copies": train, "background": masks}
        needed = [name for name, value in given.items() if value is not None]
        contract = Contract.preset(needed) if contract is None else Contract.load(contract)
    data = samples if isinstance(samples, Samples) else load_samples(samples, group=group)
    items = of_classes(data.labelled(), classifier)
    for note in data.notes:
        progress.note(note)
    if train is not None:
        classifier = with_known(classifier, train, store, progress)
    kept, logits, pooled, files = look_at(classifier, items, store, None, progress)
    labels = torch.tensor([classifier.index_of(s.label) for s in kept])
    grouped = group is not None or any(s.group is not None for s in kept)
    material = Material(
        classifier, tuple(kept), logits, pooled, labels, tuple(files), grouped, len(items) - len(kept), n_explained,
        masks, store, seed, progress,
    )  # fmt: skip
    found = {name: CHECKS[name].measure(material, limit) for name, limit in contract.limits.items()}
    return Audit(_told(material, contract, found), audit_page)


def of_classes(samples: Samples, classifier: Classifier) -> tuple[Sample, ...]:
    """The pictures, if every label is one of the classes: an audit leaves nothing out."""
    items, _ = samples.of(classifier.classes)
    known = set(classifier.classes)
    strange = [s for s in samples.items if s.label not in known]
    if strange:
        names = list(dict.fromkeys(s.label for s in strange))
        raise DataError(
            f"{len(strange)} of {len(samples)} pictures have labels that are none of its {len(classifier.classes)} "
            f"classes: {some(list(map(repr, names)), 3)}. Its classes were expected, such as "
            f"{some(list(map(repr, classifier.classes)), 3)}. Name them alike, or leave these pictures out."
        )
    return items


def with_known(classifier: Classifier, train: Any, store: FeatureStore | None, progress: Progress) -> Classifier:
    """It with what is kept of pictures that it was fitted on, where somebody says which those are."""
    data = train if isinstance(train, Samples) else load_samples(train)
    _, _, pooled, files = look_at(classifier, data.items, store, None, progress)
    names, digests, small = zip(*files, strict=True)
    known = KnownPictures.of(names, digests, pooled, classifier.encoder.fingerprint, small)
    return replace(classifier, known=known)


def _told(material: Material, contract: Contract, found: Mapping[str, Figure]) -> dict[str, Any]:
    rows = [contract.limits[name].row(name, figure) for name, figure in found.items()]
    details = {name: None if name not in found else found[name].detail for name in ("group_gap", "copies", "one_place")}
    broken = [row for row in rows if row["broken"]]
    return {
        "audit": "fail" if broken else "pass", "sentence": _sentence(rows, len(material.items)),
        "n": len(material.items), "figures": rows, "groups": details["group_gap"], "copies": details["copies"],
        "place": details["one_place"], "contract": contract.source,
        "settings": {"n_explained": material.n_explained, "seed": material.seed},
        "model": material.classifier.provenance(), **beside(material.progress),
    }  # fmt: skip


def _sentence(rows: list[dict[str, Any]], n: int) -> str:
    """Whether it passes, and what is broken."""
    on, broken = f"on {n} picture{'s' * (n != 1)}", []
    for row in rows:
        if row["broken"]:
            end, _, judged = row["judged_by"].rpartition(", ")
            why = judged if end == ENDS["value"] else f"{row['value'] or 0:.3g}, {end} {judged}"
            why = f"{why}; asked for: {row['asked'].partition(',')[0]}"
            broken.append(f"{row['name']} ({'not measured, and required' if row['state'] == 'not measured' else why})")
    if broken:
        return f"The contract is broken {on}, in {len(broken)} of {len(rows)} figures: {', '.join(broken)}."
    others = {"fail": "not kept", "not measured": "not measured"}
    aside = {said: [row["name"] for row in rows if row["state"] == state] for state, said in others.items()}
    rest = "".join(f"; {said}, and not required: {', '.join(names)}" for said, names in aside.items() if names)
    return f"The contract is kept {on}, in all of {len(rows) - sum(map(len, aside.values()))} figures{rest}."


def junit(data: dict[str, Any]) -> str:
    """One test case a figure: a failure where the contract is broken, skipped where it need not be kept."""
    rows = data["figures"]
    broken = [row for row in rows if row["broken"]]
    skipped = [row for row in rows if row["state"] != "pass" and not row["broken"]]
    numbers = {"tests": str(len(rows)), "failures": str(len(broken)), "errors": "0"}
    suites = ET.Element("testsuites", numbers)  # of which Jenkins' schema has no number skipped
    suite = ET.SubElement(suites, "testsuite", {"name": "seewhy audit", **numbers, "skipped": str(len(skipped))})
    for row in rows:
        case = ET.SubElement(suite, "testcase", {"classname": "seewhy.audit", "name": row["name"]})
        measured = "not measured"
        if row["value"] is not None:
            between = "" if row["interval"] is None else f" ({row['interval'][0]:g} to {row['interval'][1]:g})"
            measured = f"{row['value']:g}{between}, judged by {row['judged_by']}"
        short = f"{row['title']}: {measured}; asked for: {row['asked'].partition(',')[0]}."
        if row in broken:
            kind = "broken" if row["state"] == "fail" else "not measured"
            ET.SubElement(case, "failure", {"message": _clean(short), "type": kind}).text = _clean(row["meaning"])
        elif row in skipped:
            told = row["meaning"] if row["state"] == "not measured" else f"Not required. {short} {row['meaning']}"
            ET.SubElement(case, "skipped", {"message": _clean(told)})
        else:
            ET.SubElement(case, "system-out").text = _clean(f"{short} {row['meaning']}")
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    """Without what no XML may hold, such as a control character in a file's name."""
    return "".join(
        c if c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff" else "\ufffd" for c in printable(text)
    )
