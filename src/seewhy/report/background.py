"""Does it use the background, as one page: the verdict with its rule, pictures on other backgrounds, every class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .page import photo_uri, render


def render_background(study: dict[str, Any], examples: Sequence[Any]) -> str:
    """The study as one self-contained page."""
    headline, _, rest = study["sentence"].partition(": ")
    shown = [
        {
            "image": one.image, "label": one.label,
            "versions": [
                {"name": name, "uri": photo_uri(pixels, 80), "said": said, "score": score, "right": said == one.label}
                for name, pixels, said, score in one.versions
            ],
        }
        for one in examples
    ]  # fmt: skip
    rows = [study["all"], *sorted(study["classes"], key=lambda row: -row["difference"]["value"])]
    return render(
        "background.html", None, **study, headline=f"{headline}.", rest=rest, examples=shown, rows=rows,
        shown=[row["version"] for row in study["all"]["versions"]],
    )  # fmt: skip
