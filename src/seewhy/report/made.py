"""Made pictures as one page: for each way its chains as strips, and a table of what a second network sees."""

from __future__ import annotations

from typing import Any

import numpy as np

from .page import layer_uri, render

TITLES = {
    "ppgn": ("With the prior", "Codes climb, and are drawn back to those that pictures have."),
    "no_prior": ("Control: without the prior", "The same climb from the same starts with ε1 = 0 (DGN-AM)."),
    "pixels": (
        "Control: in pixels",
        "No generator: the pixels climb themselves, from the same first pictures. What this looks like is what the "
        "network would be content with.",
    ),
}


def render_made(data: dict[str, Any], strips: dict[str, list[np.ndarray]]) -> str:
    """The chains as one self-contained page."""
    groups = []
    for row in data["ways"]:
        title, lead = TITLES[row["way"]]
        chains = [c for c in data["chains"] if c["way"] == row["way"]]
        shown = [
            {
                **chain,
                "number": i,
                "frames": [
                    {"uri": layer_uri(pixels), "step": step, "value": value}
                    for pixels, step, value in zip(strip, chain["steps"], chain["values"], strict=True)
                ],
            }
            for i, (chain, strip) in enumerate(zip(chains, strips[row["way"]], strict=True), 1)
        ]
        groups.append({**row, "title": title, "lead": lead, "chains": shown})
    first, _, rest = data["sentence"].partition(". ")
    return render("made.html", None, **data, groups=groups, headline=f"{first.removesuffix('.')}.", rest=rest)
