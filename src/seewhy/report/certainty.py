"""The first line of every card: how far to trust the decision."""

from __future__ import annotations

from ..explanation.base import Explanation
from ..explanation.decision import Certainty, Decision
from ..explanation.prediction import Prediction
from ..explanation.verdict import Level
from .canvas import LEVEL_COLOURS, Canvas
from .page import percent

SIGNS: dict[Certainty, tuple[Level, str]] = {
    "sure": ("believable", "Sure"),
    "one of few": ("partly", "One of few"),
    "unlike anything it knows": ("do not rely", "Unlike anything it knows"),
    "not measured": ("not measured", "Not measured"),
}
"""The sign of each verdict, which is that of evidence as far to be relied on, and how it is said."""


def sign_of(decision: Decision | None) -> tuple[Level, str]:
    return SIGNS["not measured" if decision is None else decision.verdict]


def heading(e: Explanation) -> str:
    """What stands in large letters: the class, or that it is none."""
    decision = e.prediction.decision
    return "Unlike anything it knows" if decision is not None and decision.is_unknown else e.prediction.label


def odds(e: Explanation) -> str:
    """Beside it: how probable it is that the decision is right."""
    right = e.prediction.probability
    return "" if right is None else percent(right)


def own_scores(p: Prediction, space: str = " ") -> str:
    """What the classifier itself says of the first two classes, where the heading says something else."""
    if not p.is_measured or p.n_classes == 1:
        return ""
    return ", ".join(f"{r.label} {percent(r.score, space)}" for r in p.top[:2])


def figures_of(decision: Decision | None) -> list[tuple[str, str, str]]:
    """What was measured: ``(definition, name, text)``."""
    if decision is None or decision.probability is None or decision.interval is None:
        return []
    low, high = (percent(v, " ") for v in decision.interval)
    rows = [("right", "Right", f"{percent(decision.probability, ' ')} ({low} to {high})")]
    if decision.fit is not None:
        rows.append(("fit-known", "As strange or stranger", f"{percent(decision.fit, ' ')} of held-out pictures"))
    if decision.sure_right is not None:
        rows.append(
            ("sure", "Of those called sure, right", f"{percent(decision.sure_right, ' ')} of {decision.n_sure:,}")
        )
    told = decision.unknowns
    if told is not None and told.near_found is not None and told.near_interval is not None:
        low, high = (percent(v, " ") for v in told.near_interval)
        rows.append(("unknown", "Of classes left out, noticed", f"{percent(told.near_found, ' ')} ({low} to {high})"))
    if told is not None and told.near_sure is not None and told.near_sure_interval is not None:
        low, high = (percent(v, " ") for v in told.near_sure_interval)
        rows.append(("unknown", "called sure", f"{percent(told.near_sure, ' ')} ({low} to {high})"))
    if told is not None and told.far_found is not None:
        rows.append(("unknown", "Of noise and patterns, noticed", percent(told.far_found, " ")))
    return rows


def draw_certainty(c: Canvas, e: Explanation, x: float, y: float, width: float) -> float:
    """Sign and sentence, for a still; returns where the next line would stand."""
    decision = e.prediction.decision
    if decision is None:
        return y
    level, said = sign_of(decision)
    c.glyph(x, y - 21, level, 26)
    indent = c.measure(f"{said}.", 24, True) + 10
    c.text(x + 38, y, f"{said}.", 24, LEVEL_COLOURS[level], True)
    lines = c.lines(decision.sentence, width - 38, 24, 4, indent=indent)
    for number, line in enumerate(lines):
        c.text(x + 38 + (0 if number else indent), y + number * 34, line, 24)
    return y + 34 * max(1, len(lines))
