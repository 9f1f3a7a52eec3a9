"""A figure of an audit, the limit it must keep, and what follows from both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Bound = Literal["worst", "value", "best"]
BOUNDS: tuple[str, ...] = get_args(Bound)
Side = Literal["at_least", "at_most"]
State = Literal["pass", "fail", "not measured"]
ENDS: dict[Bound, str] = {
    "worst": "the worse end of the interval",
    "value": "the figure",
    "best": "the better end of the interval",
}


@dataclass(frozen=True)
class Figure:
    """What was measured.

    Attributes:
        value: the figure; ``None`` where it could not be measured.
        interval: of it, at 95 %; ``None`` where all there is was counted.
        n: what it was measured on.
        meaning: what that says, in a sentence; of what could not be measured, why, and what it would take.
        detail: more of it, for the report.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    n: int = 0
    meaning: str = ""
    detail: Any = None


def missing(reason: str) -> Figure:
    """A figure that cannot be measured."""
    return Figure(None, meaning=reason)


@dataclass(frozen=True)
class Limit:
    """What a figure must keep.

    Attributes:
        side: whether the limit is the least or the most.
        value: the limit.
        bound: what is held against it: the interval's end that is worse, the figure itself, or the end that is better.
        required: whether the contract is broken where this is not kept, or cannot be measured; else it is only told.
        level: the least verdict that counts, of figures that count verdicts.
    """

    side: Side
    value: float
    bound: Bound = "value"
    required: bool = True
    level: str = ""

    def judged(self, figure: Figure) -> float | None:
        """The number that is held against the limit.

        >>> Limit("at_least", 0.9, "worst").judged(Figure(0.95, (0.88, 0.99)))
        0.88
        """
        if figure.value is None or figure.interval is None or self.bound == "value":
            return figure.value
        low, high = figure.interval
        return low if (self.bound == "worst") == (self.side == "at_least") else high

    def broken(self, figure: Figure) -> bool:
        """Whether this breaks a contract.

        >>> Limit("at_most", 0.1, required=False).broken(Figure(0.12)), Limit("at_most", 0.1).broken(Figure(0.12))
        (False, True)
        """
        return self.required and self.state(figure) != "pass"

    def state(self, figure: Figure) -> State:
        """Whether the limit is kept.

        >>> Limit("at_most", 0.1, "best").state(Figure(0.12, (0.08, 0.2)))
        'pass'
        """
        value = self.judged(figure)
        if value is None:
            return "not measured"
        return "pass" if (value >= self.value if self.side == "at_least" else value <= self.value) else "fail"

    @property
    def told(self) -> str:
        """In words.

        >>> Limit("at_least", 0.9, "worst").told
        'at least 0.9, by the worse end of the interval'
        """
        return f"{self.side.replace('_', ' ')} {self.value:g}, by {ENDS[self.bound]}"

    def said(self, figure: Figure) -> str:
        """What is held against the limit, by its name, with as many digits as tell the two apart.

        >>> Limit("at_least", 0.9, "worst").said(Figure(0.95, (0.89996, 0.99)))
        'the worse end of the interval, 0.89996'
        >>> Limit("at_most", 0.1).said(Figure(0.12))
        'the figure, 0.120'
        """
        value = self.judged(figure)
        if value is None:
            return ""
        end = ENDS["value" if figure.interval is None else self.bound]
        state = self.state(figure)
        # As pages round the interval's ends, from four decimals.
        shown = [f"{round(value, 4):.3f}", *(f"{value:.{digits}f}" for digits in range(4, 17))]
        return f"{end}, {next((s for s in shown if self.state(Figure(float(s))) == state), repr(value))}"

    def to_json(self) -> dict[str, Any]:
        data = {"side": self.side, "value": self.value, "bound": self.bound, "required": self.required}
        return data if not self.level else data | {"level": self.level}
