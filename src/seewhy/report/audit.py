"""Does it keep the contract, as one page: every figure with its interval, limit, state and what it means."""

from __future__ import annotations

from typing import Any

from .page import render


def render_drift(data: dict[str, Any]) -> str:
    """A comparison with the training pictures as one self-contained page."""
    headline, _, rest = data["sentence"].partition(": ")
    return render("drift.html", None, **data, headline=f"{headline}.", rest=rest)


def render_audit(data: dict[str, Any]) -> str:
    """The audit as one self-contained page."""
    headline, _, rest = data["sentence"].partition("; " if data["audit"] == "pass" else ": ")
    order = {"fail": 0, "not measured": 1, "pass": 2}
    rows = sorted(data["figures"], key=lambda row: (not row["broken"], order[row["state"]]))
    return render("audit.html", None, **data, headline=headline.rstrip(".") + ".", rest=rest, rows=rows)
