"""What is real, as one page: the accuracy with what becomes of it, who else judges, and what was tried."""

from __future__ import annotations

from typing import Any

from .page import render


def render_real_or_generated(study: dict[str, Any]) -> str:
    """The study as one self-contained page."""
    first, _, rest = study["sentence"].partition("; ")
    tried = sorted(study["topologies"], key=lambda row: -row["right"])
    versions = [cell["version"] for cell in study["judges"][0]["cells"]]
    lead = {row["version"]: row for row in study["lead_over_frozen"]}
    return render(
        "real_or_generated.html",
        None,
        **{**study, "topologies": tried},
        headline=f"{first.rstrip('.')}.",
        rest=rest,
        versions=versions,
        lead=lead,
    )
