"""Do the three kinds of evidence tell the same story?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..explanation.base import TOO_LITTLE, Agreement, Words
from ..explanation.similar import Like
from ..explanation.verdict import Missing
from .case import Case

AGREE, IN_PART = 0.7, 0.4
NEAR = 0.09
"""Of a limit: a neighbour or two more or less, which a picture moved by a pixel may find."""


UNKNOWN = "The picture is called unlike anything the classifier knows: there is nothing for its evidence to agree on."
FAR = "Even the nearest patches are too far to be like this picture: there is nothing for its evidence to agree on."


def rank_correlation(a: Float[Tensor, "h w"], b: Float[Tensor, "gh gw"]) -> float | None:
    """Spearman's correlation of two maps; none where a map is constant.

    The finer map is averaged over the cells of the coarser.
    """
    size = (min(a.shape[0], b.shape[0]), min(a.shape[1], b.shape[1]))
    one, other = ((m if m.shape == size else adaptive_avg_pool2d(m[None], size)[0]).flatten().numpy() for m in (a, b))
    if (one == one[0]).all() or (other == other[0]).all():
        return None
    return float(np.clip(np.corrcoef(_ranks(one), _ranks(other))[0, 1], -1, 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Equal values share their mean rank; scipy's would take half a second to import."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((count.cumsum() - (count - 1) / 2)[place])


def agreement_of(case: Case, answers: Mapping[str, Any]) -> Agreement:
    """Of what was answered before."""
    return agree(
        case.label,
        case.heat,
        case.spoken if case.subject.regions_are_of_class else None,
        answers["like"],
        answers["words"],
        case.classifier.decided_by_words,
        case.subject.decision,
        unknown=case.subject.unknown,
    )


def agree(
    label: str,
    heat: Float[Tensor, "h w"],
    words_map: Float[Tensor, "gh gw"] | None,
    like: Like | Missing,
    words: Words | Missing,
    decided_by_words: bool,
    decision: str | None = None,
    *,
    unknown: bool = False,
) -> Agreement:
    """Parts in 0…1: neighbours of the class explained, words choosing it, words holding where it looked.

    What made the decision is no part of it: words that decided, and pictures that voted. Nor are neighbours of regions
    that do not speak for the class, and those that are far for neighbours. Of a picture unlike all that is known
    there is none.
    """
    if unknown:
        return Agreement(None, {}, UNKNOWN)
    parts: dict[str, float] = {}
    said: list[str] = []
    far = isinstance(like, Like) and like.of_target is not None and like.of_target.far
    if isinstance(like, Like) and like.neighbours and like.of_class and not like.display.votes and not far:
        share = sum(n.label == label for n in like.neighbours) / len(like.neighbours)
        parts["neighbours"] = share
        said.append(f"{share:.0%} of the neighbours are {label}")
    if isinstance(words, Words) and not decided_by_words:
        same = words.decision == label
        parts["words"] = float(same)
        said.append(f"the words {'choose' if same else 'do not choose'} {label}")
        along = None if words_map is None else rank_correlation(heat, words_map)
        if along is not None:
            overlap = max(0.0, along)
            parts["place"] = overlap
            said.append(f"the words hold where it looked to {overlap:.0%}")
    if not parts:
        return Agreement(None, {}, FAR if far else TOO_LITTLE)
    if far:
        said.append("the nearest patches are too far to count")
    score = sum(parts.values()) / len(parts)
    verdict = "agree" if score >= AGREE else "agree in part" if score >= IN_PART else "disagree"
    near = next((limit for limit in (AGREE, IN_PART) if abs(score - limit) < NEAR), None)
    if near is not None:
        said.append(f"so near the limit of {near:.0%} that a pixel may decide")
    if decision in (None, label):
        who = "The kinds of evidence" if len(parts) > 1 else "The decision and its evidence"
        return Agreement(round(score, 4), parts, f"{who} {verdict}: {', '.join(said)}.")
    who = f"About {label}, which was not decided for, the kinds of evidence {verdict}"
    if len(parts) == 1:
        who = f"For {label}, which was not decided for, there is one kind of evidence"
    return Agreement(round(score, 4), parts, f"{who}: {', '.join(said)}.", label)
