"""An audit as JUnit XML, which services for continuous integration read."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from ...printable import printable


def junit(data: dict[str, Any]) -> str:
    """One test case a figure: a failure where the contract is broken, skipped where it need not be kept.

    Args:
        data: the document of ``seewhy audit --json``.
    """
    figures = data["figures"]
    broken = [row for row in figures if row["broken"]]
    skipped = [row for row in figures if row["state"] != "pass" and not row["broken"]]
    counts = {"tests": len(figures), "failures": len(broken), "errors": 0, "skipped": len(skipped)}
    numbers = {key: str(value) for key, value in counts.items()}
    # Jenkins' schema has no such attribute of all suites together.
    suites = ET.Element("testsuites", {key: value for key, value in numbers.items() if key != "skipped"})
    suite = ET.SubElement(suites, "testsuite", {"name": "seewhy audit", **numbers})
    for row in figures:
        case = ET.SubElement(suite, "testcase", {"classname": "seewhy.audit", "name": row["name"]})
        short = f"{row['title']}: {_figure(row)}; asked for: {row['asked'].partition(',')[0]}."
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


def _figure(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "not measured"
    between = "" if row["interval"] is None else f" ({row['interval'][0]:g} to {row['interval'][1]:g})"
    return f"{row['value']:g}{between}, judged by {row['judged_by']}"


def _clean(text: str) -> str:
    """Without what no XML may hold, such as a control character in a file's name."""
    return "".join(
        c if c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff" else "\ufffd" for c in printable(text)
    )
