"""How faithful the maps of many pictures are, beside the same heat at shuffled places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifiers.base import Classifier
from ..explanation.base import Explanation, Where
from ..explanation.verdict import Level
from ..progress import Progress

LEVELS: tuple[Level, ...] = ("believable", "partly", "do not rely", "not measured")
FURTHER = ("average_drop", "average_increase", "average_gain", "road", "sparsity")
N_DRAWS = 2000
"""Of as many pictures, with replacement, for an interval."""
N_FEWEST = 10
"""Pictures below which no difference is called real: the bootstrap is too sure of itself on fewer."""


def faithfulness_figures(explained: Sequence[Explanation], seed: int) -> dict[str, Any] | None:
    """Means over the explained pictures, for the predicted class of each.

    A map that is zero everywhere orders no pixels: it has no deletion, and counts as no better than a random one.
    """
    shown = [e.where for e in explained if isinstance(e.where, Where)]
    maps = [m for m in shown if m.deletion is not None]
    if not shown:
        return None
    names = ("deletion", "deletion_random", "insertion", "insertion_random", "match", "match_centre")
    found = {n: torch.tensor([getattr(m, n) for m in maps], dtype=torch.double) for n in names}
    means = {n: round(float(v.mean()), 4) if maps else None for n, v in found.items()}
    own = found["insertion"] - found["deletion"]
    shuffled = found["insertion_random"] - found["deletion_random"]
    leads = torch.cat([own - shuffled, torch.zeros(len(shown) - len(maps), dtype=torch.double)])
    verdicts = {v: sum(m.verdict.level == v for m in shown) for v in LEVELS}
    return {
        "n": len(shown),
        "n_zero": len(shown) - len(maps),
        "method": shown[0].method,
        **means,
        "than_random": than_random(leads, seed),
        "verdicts": verdicts,
    }


def than_random(leads: Float[Tensor, " n"], seed: int) -> dict[str, Any]:
    """Whether maps are better than their shuffled copies, picture by picture.

    Example:
        >>> than_random(torch.tensor([0.1, 0.2, 0.3] * 5), 0)["sentence"]
        'The maps are better than random: insertion less deletion differs by +0.20 (+0.16 to +0.24), n = 15.'
    """
    n, lead, (low, high) = len(leads), float(leads.mean()), mean_interval(leads, seed)
    enough = n >= N_FEWEST
    verdict = "better" if enough and low > 0 else "worse" if enough and high < 0 else "not shown"
    said = f"The maps are {verdict} than random" if verdict != "not shown" else "Better than random: not shown"
    why = "" if enough else f", fewer than {N_FEWEST} pictures show nothing"
    figures = f"insertion less deletion differs by {lead:+.2f} ({low:+.2f} to {high:+.2f}), n = {n}{why}."
    return {
        "lead": round(lead, 4),
        "interval": [round(low, 4), round(high, 4)],
        "verdict": verdict,
        "sentence": f"{said}: {figures}".replace("-", "−"),
    }


def mean_interval(values: Float[Tensor, " n"], seed: int) -> tuple[float, float]:
    """95 % interval of a mean over pictures, by drawing as many with replacement (percentile bootstrap).

    >>> mean_interval(torch.ones(5), 0)
    (1.0, 1.0)
    """
    draws = torch.randint(len(values), (N_DRAWS, len(values)), generator=torch.Generator().manual_seed(seed))
    edges = torch.tensor([0.025, 0.975], dtype=torch.double)
    low, high = values.double()[draws].mean(1).quantile(edges).tolist()
    return low, high


def further_figures(classifier: Classifier, explained: Sequence[Explanation], progress: Progress) -> dict[str, Any]:
    """Means of more metrics over the same pictures and maps, each beside the same map with its cells shuffled."""
    from ..metrics import metrics
    from ..metrics.base import Case, shuffled

    judges = [metrics[name]() for name in FURTHER]
    maps = [e for e in explained if isinstance(e.where, Where) and e.where.deletion is not None]
    found: dict[str, list[float]] = defaultdict(list)
    for e in progress.track(maps, "Measuring faithfulness", len(maps)):
        assert isinstance(e.where, Where)
        heat = torch.from_numpy(e.where.heat)
        pixels = classifier.encoder.pixels([e.view])[0]
        case = Case.of(classifier, pixels, classifier.index_of(e.where.target))
        for judge in judges:
            ours, control = judge.measure(case, torch.cat([heat[None], shuffled(heat, 1, 0)]))
            found[judge.name].append(ours.value)
            found[f"{judge.name}_random"].append(control.value)
    return {name: round(sum(v) / len(v), 4) for name, v in found.items()}


def outside_figures(explained: Sequence[Explanation], seed: int, progress: Progress) -> dict[str, Any] | None:
    """Means over the explained pictures, for the class predicted; ``None`` where nobody says where the objects are.

    ``beyond`` is the share outside less the area outside, picture by picture: above 0, evidence lies on the background
    more than it would by chance. Pictures on which it was not measured are a note, with the first one's reason.
    """
    found = [(e, e.where.outside) for e in explained if isinstance(e.where, Where) and e.where.outside is not None]
    if not found:
        return None
    if left := [f"{e.prediction.image}: {one.why}" for e, one in found if one.share is None]:
        progress.note(f"Heat outside the object was not measured on {len(left)} picture(s), such as {left[0]}")
    pairs = [(one.share, one.area) for _, one in found if one.share is not None and one.area is not None]
    data: dict[str, Any] = {"masks": found[0][1].masks, "n": len(pairs)}
    if not pairs:
        nothing = dict.fromkeys(("share", "area", "beyond", "interval"))
        return {**data, **nothing, "sentence": "How much of the heat lies outside the object was not measured."}
    share, area = torch.tensor(pairs, dtype=torch.double).unbind(1)
    low, high = mean_interval(share - area, seed)
    outer, chance, beyond = (round(float(v.mean()), 4) for v in (share, area, share - area))
    sentence = (
        f"{outer:.0%} of the heat lies outside the object, by chance it would be {chance:.0%}; difference {beyond:+.0%}"
        f" ({low:+.0%} to {high:+.0%}), n = {len(pairs)}."
    )
    interval = [round(low, 4), round(high, 4)]
    means = {"share": outer, "area": chance, "beyond": beyond, "interval": interval}
    return {**data, **means, "sentence": sentence.replace("%", " %")}
