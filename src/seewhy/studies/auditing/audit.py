"""Compare a classifier with the limits of a contract (``seewhy.audit``)."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from ...arguments import checked
from ...bounds import Natural
from ...classifiers.base import Classifier
from ...errors import DataError
from ...evaluation.figures import look_at
from ...pictures.object_masks import MaskSource
from ...pictures.samples import Sample, Samples, load_samples, some
from ...printable import printable
from ...progress import Progress
from ...report.blocks import Block, Cell, Colour, Document, Facts, Fold, Note, Section, Table, closing, pair, points
from ...storage.features import FeatureStore
from ..pages import between, parted
from ..study import Findings, beside
from . import figures  # noqa: F401  (registers them)
from .contract import CHECKS, ENDS, Contract, Figure, Material

MOST_SHOWN = 50


def audit_page(data: dict[str, Any]) -> Document:
    headline, rest = parted(data["sentence"])
    order = {"fail": 0, "not measured": 1, "pass": 2}
    rows = sorted(data["figures"], key=lambda row: (not row["broken"], order[row["state"]]))
    columns = ("name in the contract", "measured", "95 % interval", "pictures", "judged by", "limit")
    blocks: list[Block] = [
        Section(
            "Results",
            [
                Table(("figure", "result", "result"), [_result(row) for row in rows]),
                Fold("Figures", [Table(columns, [_figure_line(row) for row in rows])]),
            ],
        )
    ]
    if data["groups"]:
        lead = (
            "In per cent. Intervals are corrected for the number of groups (Bonferroni), and so are Fisher's p values "
            "(Holm). Small groups were not tested."
        )
        lines = [
            (
                row["group"], row["n"], points(row["accuracy"]), points(row["accuracy_rest"]),
                None if row["gap"] is None else Cell(points(row["gap"], True), [pair(row["interval"])]),
                None if row["p"] is None else f"{row['p']:.2g}",
            )
            for row in data["groups"]
        ]  # fmt: skip
        head = ("group", "pictures", "correct", "correct in others", "others minus this group", "p")
        blocks.append(Section("Groups", [Note(lead), Table(head, lines)]))
    if copies := data["copies"]:
        facts = {}
        for one in copies[:MOST_SHOWN]:
            agree = "" if one["agreement"] is None else f" (agreement {one['agreement']:.3f} of 1)"
            how = "same file as" if one["same_bytes"] else "near copy of"
            facts[one["image"]] = f"{how} {one['fitted_on']}{agree}"
        more = len(copies) - MOST_SHOWN
        rest_of = [Note(f"{more} more are in the JSON.")] if more > 0 else []
        blocks.append(Section("Training pictures among these", [Facts(facts), *rest_of]))
    above = f"Audit on {data['n']:,} picture{'s' * (data['n'] != 1)} · contract: {data['contract']}"
    return Document("Audit", headline, [*blocks, *closing(data, "Notes")], above, (rest,))


def _result(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the row of a metric: title, state, and meaning."""
    colour: Colour = "bad" if row["broken"] else "good" if row["state"] == "pass" else ""
    optional = [] if row["state"] == "pass" or row["broken"] else ["(not required)"]
    missed = []
    if row["state"] == "fail":
        end, _, judged = row["judged_by"].rpartition(", ")
        missed = [f"The limit is {_limit(row)}; {end} is {judged}.", f"What to do: {CHECKS[row['name']].cure}"]
    return row["title"], Cell(row["state"], optional, colour), Cell(row["meaning"], missed)


def _limit(row: Mapping[str, Any]) -> str:
    return str(row["asked"].partition(",")[0])


def _figure_line(row: Mapping[str, Any]) -> tuple[Any, ...]:
    level = [f"verdict {row['limit']['level']} or better"] if "level" in row["limit"] else []
    value = None if row["value"] is None else f"{row['value']:.3f}".replace("-", "−")
    interval = between(row["interval"]) if row["interval"] else None
    return row["name"], value, interval, row["n"], row["judged_by"] or None, Cell(_limit(row), level)


@dataclass(frozen=True, repr=False)
class Audit(Findings):
    """The result of an audit; ``data`` is the JSON object that docs/json.md describes."""

    @property
    def passed(self) -> bool:
        return bool(self.data["audit"] == "pass")

    def to_junit(self) -> str:
        """Return the audit as JUnit XML, a test case per metric; a failed metric that is not required is skipped."""
        rows = self.data["figures"]
        broken = [row for row in rows if row["broken"]]
        skipped = [row for row in rows if row["state"] != "pass" and not row["broken"]]
        numbers = {"tests": str(len(rows)), "failures": str(len(broken)), "errors": "0"}
        suites = ET.Element("testsuites", numbers)  # Jenkins' schema has no attribute "skipped" here
        suite = ET.SubElement(suites, "testsuite", {"name": "seewhy audit", **numbers, "skipped": str(len(skipped))})
        for row in rows:
            case = ET.SubElement(suite, "testcase", {"classname": "seewhy.audit", "name": row["name"]})
            measured = "not measured"
            if row["value"] is not None:
                between = "" if row["interval"] is None else f" ({row['interval'][0]:g} to {row['interval'][1]:g})"
                measured = f"{row['value']:g}{between}, judged by {row['judged_by']}"
            short = f"{row['title']}: {measured}; limit: {_limit(row)}."
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
    """Compare a classifier with the limits of a contract, on labelled test pictures.

    Args:
        classifier: the classifier to audit.
        samples: labelled test pictures, or their folder or table.
        contract: the limits, or their TOML file; default: :meth:`Contract.preset`. The preset requires the metrics on
            groups, training pictures or masks if ``group``, ``train`` or ``masks`` is given.
        group: column of the table that groups the pictures; ``"folder"`` for class folders.
        train: training pictures, if the classifier does not store them.
        masks: source of object masks (:mod:`seewhy.pictures.object_masks`), to measure the influence of the
            background.
        n_explained: number of random pictures for which the faithfulness of explanations is measured.
        store: cache of features between runs; default: no cache.
        seed: seed of all random numbers.
        progress: progress reporter.

    Raises:
        DataError: a label is not one of the classes, no picture can be read, or the contract is invalid.
    """
    progress = progress or Progress()
    if not isinstance(contract, Contract):
        given = {"group_gap": group, "copies": train, "background": masks}
        needed = [name for name, value in given.items() if value is not None]
        contract = Contract.preset(needed) if contract is None else Contract.load(contract)
    data = samples if isinstance(samples, Samples) else load_samples(samples, group=group)
    items = of_classes(data.labelled(), classifier)
    progress.note_all(data.notes)
    if train is not None:
        classifier = with_known(classifier, train, store, progress)
    seen, logits = look_at(classifier, items, store, None, progress)
    grouped = group is not None or any(s.group is not None for s in seen.items)
    n_unreadable = len(items) - len(seen)
    material = Material(classifier, seen, logits, grouped, n_unreadable, n_explained, masks, store, seed, progress)
    found = {name: CHECKS[name].measure(material, limit) for name, limit in contract.limits.items()}
    return Audit(_told(material, contract, found), audit_page)


def of_classes(samples: Samples, classifier: Classifier) -> tuple[Sample, ...]:
    """Return the pictures, after checking that every label is one of the classes."""
    items, _ = samples.of(classifier.classes)
    known = set(classifier.classes)
    strange = [s for s in samples.items if s.label not in known]
    if strange:
        names = list(dict.fromkeys(s.label for s in strange))
        raise DataError(
            f"Labels must be among the {len(classifier.classes)} classes of the classifier, such as "
            f"{some(list(map(repr, classifier.classes)), 3)}, and {len(strange)} of {len(samples)} pictures have "
            f"others: {some(list(map(repr, names)), 3)}. Rename the labels, or leave these pictures out."
        )
    return items


def with_known(classifier: Classifier, train: Any, store: FeatureStore | None, progress: Progress) -> Classifier:
    """Return a copy of the classifier with these training pictures stored in it."""
    data = train if isinstance(train, Samples) else load_samples(train)
    seen, _ = look_at(classifier, data.items, store, None, progress)
    return replace(classifier, known=seen.known(~seen.held))


def _told(material: Material, contract: Contract, found: Mapping[str, Figure]) -> dict[str, Any]:
    rows = [contract.limits[name].row(name, figure) for name, figure in found.items()]
    details = {name: None if name not in found else found[name].detail for name in ("group_gap", "copies", "one_place")}
    broken = [row for row in rows if row["broken"]]
    return {
        "audit": "fail" if broken else "pass", "sentence": _sentence(rows, len(material.seen)),
        "n": len(material.seen), "figures": rows, "groups": details["group_gap"], "copies": details["copies"],
        "place": details["one_place"], "contract": contract.source,
        "settings": {"n_explained": material.n_explained, "seed": material.seed},
        "model": material.classifier.provenance(), **beside(material.progress),
    }  # fmt: skip


def _sentence(rows: list[dict[str, Any]], n: int) -> str:
    on, broken = f"on {n:,} picture{'s' * (n != 1)}", [row for row in rows if row["broken"]]
    if broken:
        said = []
        for row in broken:
            end, _, judged = row["judged_by"].rpartition(", ")
            value = judged if end == ENDS["value"] else f"{row['value'] or 0:.3g} ({end}: {judged})"
            measured = f"is {value}, and the limit is {_limit(row)}"
            why = "was not measured, but is required" if row["state"] == "not measured" else measured
            said.append(f"{row['name']} {why}.")
        return f"Failed: {len(broken)} of {len(rows)} figures broke the contract {on}. {' '.join(said)}"
    others = {"fail": "Missed", "not measured": "Not measured"}
    aside = {said: [row["name"] for row in rows if row["state"] == state] for state, said in others.items()}
    rest = "".join(f" {said}, but not required: {', '.join(names)}." for said, names in aside.items() if names)
    kept = len(rows) - sum(map(len, aside.values()))
    return f"Passed: {kept} figure{'s' * (kept != 1)} within {'their limits' if kept != 1 else 'its limit'} {on}.{rest}"


def _clean(text: str) -> str:
    """Replace characters that XML does not allow."""
    return "".join(
        c if c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff" else "\ufffd" for c in printable(text)
    )
