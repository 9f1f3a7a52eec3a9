"""What ``seewhy check`` and ``seewhy app`` share where labels are corrected: the corrected table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .terminal import say

if TYPE_CHECKING:
    from ..language.annotation.labels import LabelDecisions, LabelledData


def export_corrected(
    path: Path, data: LabelledData, decisions: LabelDecisions, force: bool, as_json: bool = False
) -> None:
    """Write the corrected table and say what is in it; decisions that no longer fit the data are told."""
    from ..language.annotation.labels import write_corrected

    counts = write_corrected(path, data, decisions.standing(), force=force)
    decisions.store.close()
    if as_json:
        say(json.dumps({"file": str(path), **counts}, ensure_ascii=False))
    else:
        parts = ", ".join(f"{n} {what}" for what, n in counts.items() if what != "n")
        say(f"{path}: {counts['n']} pictures ({parts})")
    if counts["outdated"]:
        say(
            f"seewhy: decisions on {counts['outdated']} of {counts['n']} rows were made on labels that {data.path} no "
            "longer gives them. They are called outdated and are not applied; decide on them again.",
            file=sys.stderr,
        )
