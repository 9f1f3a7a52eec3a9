"""Two descriptions of one picture side by side, judged on five dimensions; the aggregate is a net preference.

The dimensions and the five points are those of the released IIW judgements (arXiv 2405.02793, section 4). Net
preference of a dimension = share of judgements for the first text less share for the second, marginal and substantial
alike. The mean over the five dimensions gives the paper's figures (+66 % against other human texts, +48 % against
GPT-4V); these are points, not a relative improvement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import InputError
from ...studies.bootstrap import paired
from .records import check_author, check_seconds

DIMENSIONS: dict[str, str] = {
    "comprehensiveness": "Which one says more of what is on the picture?",
    "specificity": "Which one is more exact about it?",
    "hallucination": "Which one has fewer things that are not on the picture?",
    "first_lines": "Whose first line or two gives the better idea of the whole?",
    "human_likeness": "Which one reads more as if a person had written it?",
}
"""What is asked, and how."""

POINTS: dict[int, str] = {
    2: "A is substantially better",
    1: "A is marginally better",
    0: "Neutral",
    -1: "B is marginally better",
    -2: "B is substantially better",
}
"""Scores of an answer, from the first text's side."""


@dataclass(frozen=True)
class Net:
    """A net preference for the first text.

    Attributes:
        value: −1…1; 0.66 is what the paper prints as +66 %.
        low, high: 95 % bootstrap interval, resampling pictures.
        n: judgements.
    """

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, Any]:
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4), "n": self.n}


def swapped(key: str, author: str, first: str, second: str) -> bool:
    """Whether the second text is shown on the left: even odds, the same each time for one person and pair."""
    digest = hashlib.sha256("\x00".join((key, author, first, second)).encode("utf-8", "surrogatepass")).digest()
    return digest[0] % 2 == 1


def check_answers(answers: object, turned: bool = False) -> dict[str, int]:
    """One score a dimension, from the first text's side."""
    if not isinstance(answers, Mapping) or set(answers) != set(DIMENSIONS):
        raise InputError(f"The answers {answers!r:.120} were given. One each was expected for {', '.join(DIMENSIONS)}.")
    for name, score in answers.items():
        if isinstance(score, bool) or not isinstance(score, int) or score not in POINTS:
            raise InputError(f"The answer {score!r:.40} to {name} was given. One of 2, 1, 0, -1, -2 was expected.")
    return {name: -int(answers[name]) if turned else int(answers[name]) for name in DIMENSIONS}


def check_judgement(row: object) -> dict[str, Any]:
    """One comparison as the export writes it."""
    if not isinstance(row, Mapping) or not all(isinstance(row.get(k), str) for k in ("first", "second")):
        raise InputError("A judgement does not name two texts. What this program exports was expected.")
    made = row.get("made")
    return {
        "author": check_author(row.get("author")),
        "first": row["first"],
        "second": row["second"],
        "swapped": row.get("swapped") is True,
        "answers": check_answers(row.get("answers")),
        "seconds": check_seconds(row.get("seconds")),
        "made": made if isinstance(made, str) else None,
    }


def net_preference(
    judgements: Sequence[Mapping[str, int]],
    pictures: Sequence[str] | None = None,
    *,
    n_draws: int = 2000,
    seed: int = 0,
) -> dict[str, Net]:
    """Net preference for the first text, by dimension and as their ``mean``.

    Example:
        >>> rows = [dict.fromkeys(DIMENSIONS, s) for s in (2, 1, 0, -1)]
        >>> net_preference(rows)["mean"].value
        0.25
    """
    if not judgements:
        raise InputError("No judgements were given. At least one was expected. Compare some pictures first.")
    names = list(DIMENSIONS)
    owners = list(pictures) if pictures is not None else [str(i) for i in range(len(judgements))]
    place = {owner: i for i, owner in enumerate(dict.fromkeys(owners))}
    sums = torch.zeros(len(place), len(names) + 1, 2, dtype=torch.double)
    for owner, row in zip(owners, judgements, strict=True):
        signs = torch.tensor([float((row[d] > 0) - (row[d] < 0)) for d in names], dtype=torch.double)
        sums[place[owner], :-1, 0] += signs
        sums[place[owner], -1, 0] += signs.mean()
        sums[place[owner], :, 1] += 1
    found = paired(sums, lambda means: means[..., 0] / means[..., 1], n_draws=n_draws, seed=seed)
    return {
        name: Net(float(found.values[i]), *found.interval(i), len(judgements))
        for i, name in enumerate([*names, "mean"])
    }
