"""Figures of the study of interpretability, how they go together over encoders, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..heads.sparse_concepts import SPARSITIES
from .bootstrap import Combine, paired
from .concepts import CONTROL
from .interpretability_run import EncoderRow
from .interpretability_score import iis
from .rank_correlation import LEAST, rank_correlation

SCORE_WITH_ACCURACY = ("iis", "accuracy")
CAVEAT = "It measures how much of the accuracy a few numbers carry, not whether people understand them."


def encoders_told(
    found: Sequence[EncoderRow], floor: float, n_draws: int, level: float, seed: int
) -> list[dict[str, Any]]:
    """Each encoder's own accuracies."""
    sums = torch.stack([one.right for one in found], 1)[..., None]
    drawn = paired(sums, lambda m: m[..., 0], n_draws=n_draws, level=level, seed=seed)
    return [
        {
            "encoder": one.name,
            "fingerprint": one.fingerprint,
            "width": one.width,
            "accuracy": _figure(drawn.values[i], drawn.interval(i)),
            "neighbours": round(one.neighbours, 4),
            "below_floor": bool(float(drawn.values[i]) < floor),
        }
        for i, one in enumerate(found)
    ]


def rows_told(found: Sequence[EncoderRow], n_draws: int, level: float, seed: int) -> list[dict[str, Any]]:
    """Every encoder with every library, all resampled on the same test pictures."""
    lines = [(one, library) for one in found for library in one.libraries]
    sums = torch.stack([torch.cat([one.right[:, None], one.libraries[name].right], 1) for one, name in lines], 1)
    kinds: dict[str, Combine] = {
        "iis": lambda m: iis(m[..., 1:], m[..., 0]),
        "normalised": lambda m: iis(m[..., 1:], m[..., 0], normalised=True),
        "area": lambda m: iis(m[..., 1:], torch.ones_like(m[..., 0]), normalised=True),
        **{f"accuracy {i}": _column(i, by_whole=False) for i in range(len(SPARSITIES))},
        **{f"arr {i}": _column(i, by_whole=True) for i in range(len(SPARSITIES))},
    }
    drawn = {k: paired(sums, f, n_draws=n_draws, level=level, seed=seed) for k, f in kinds.items()}
    rows = []
    for i, (one, name) in enumerate(lines):
        own = one.libraries[name]
        figures = {k: _figure(drawn[k].values[i], drawn[k].interval(i)) for k in kinds}
        row = {
            "encoder": one.name,
            "library": name,
            "words_of": own.words_of,
            "n_concepts": own.n_concepts,
            "draws": own.draws,
            **{k: figures[k] for k in ("iis", "normalised", "area")},
            "points": [
                {
                    "sparsity": sparsity,
                    "kept": own.kept[j],
                    "used": own.used[j],
                    "accuracy": figures[f"accuracy {j}"],
                    "arr": figures[f"arr {j}"],
                }
                for j, sparsity in enumerate(SPARSITIES)
            ],
        }
        control = next((j for j, line in enumerate(lines) if line == (one, CONTROL)), i)
        if control != i:
            value, interval, real = drawn["iis"].difference(i, control)
            row["less_random"] = {**_figure(value, interval), "real": real}
        rows.append(row)
    return rows


def _column(i: int, *, by_whole: bool) -> Callable[[Tensor], Tensor]:
    def of(means: Tensor) -> Tensor:
        return means[..., 1 + i] / (means[..., 0].clamp(min=1e-12) if by_whole else 1.0)

    return of


def _figure(value: Tensor | float, interval: tuple[float, float]) -> dict[str, Any]:
    return {"value": round(float(value), 4), "interval": [round(v, 4) for v in interval]}


def correlations(
    encoders: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], n_draws: int, level: float, seed: int
) -> list[dict[str, Any]]:
    """How scores go with accuracy over the encoders above the floor; none of fewer than four.

    The accuracy of all features is in the score's denominator, and both are measured on the same pictures. So the areas
    without that denominator stand beside it, the accuracy of the nearest neighbours on other pictures, and what is left
    once the accuracy, or the score of random directions, is held.
    """
    own = {one["encoder"]: one for one in encoders if not one["below_floor"]}
    found = []
    for library in dict.fromkeys(row["library"] for row in rows):
        by = {r["encoder"]: r for r in rows if r["library"] == library and r["encoder"] in own}
        chance = {r["encoder"]: r for r in rows if r["library"] == CONTROL and r["encoder"] in by}
        names = [name for name in by if library == CONTROL or not chance or name in chance]
        if len(names) < LEAST:
            continue
        numbers = {
            "iis": [by[n]["iis"]["value"] for n in names],
            "area": [by[n]["area"]["value"] for n in names],
            "accuracy": [own[n]["accuracy"]["value"] for n in names],
            "neighbours": [own[n]["neighbours"] for n in names],
            "iis of random": [chance[n]["iis"]["value"] for n in names if n in chance],
        }
        asked: list[tuple[str, str, str | None]] = [
            ("iis", "accuracy", None),
            ("area", "accuracy", None),
            ("iis", "neighbours", None),
            ("iis", "neighbours", "accuracy"),
        ]
        if library != CONTROL and chance:
            asked.append(("iis", "accuracy", "iis of random"))
        for x, y, given in asked:
            held = None if given is None else numbers[given]
            rho, interval = rank_correlation(numbers[x], numbers[y], held, n_draws=n_draws, level=level, seed=seed)
            found.append(
                {
                    "library": library,
                    "of": x,
                    "with": y,
                    "given": given,
                    "n": len(names),
                    "rho": None if rho is None else round(rho, 4),
                    "interval": None if interval is None else [round(v, 4) for v in interval],
                }
            )
    return found


def answer(data: dict[str, Any]) -> str:
    """What the study says, in sentences."""
    rows, encoders = data["rows"], {one["encoder"]: one for one in data["encoders"]}
    concepts = [r for r in rows if r["library"] != CONTROL] or rows
    above = [r for r in concepts if not encoders[r["encoder"]]["below_floor"]]
    if not above:
        return (
            f"No encoder is above the floor ({data['floor']:.0%} right with all features), below which ratios mean "
            f"nothing. {CAVEAT}"
        )
    best = max(above, key=lambda r: float(r["iis"]["value"]))
    last, accuracy = best["points"][-1], encoders[best["encoder"]]["accuracy"]["value"]
    low, high = best["iis"]["interval"]
    first = (
        f"The highest score is {best['iis']['value']:.3f} ({low:.3f} to {high:.3f}; {SPARSITIES[-1]} is to lose "
        f"nothing), of {best['encoder']} with {best['library']}: with {last['kept']} of {best['n_concepts']} concepts "
        f"per picture ({last['used']} different ones in all) {last['accuracy']['value']:.1%} right, with all features "
        f"{accuracy:.1%}."
    )
    return " ".join([first, *_control(above), *_over_encoders(data), CAVEAT])


def _control(rows: Sequence[dict[str, Any]]) -> list[str]:
    judged = [r["less_random"] for r in rows if "less_random" in r]
    if not judged:
        return []
    ahead = sum(d["real"] and d["value"] > 0 for d in judged)
    behind = sum(d["real"] and d["value"] < 0 for d in judged)
    return [
        f"Concepts keep more than random directions in {ahead} of {len(judged)} comparisons, less in {behind}; in the "
        f"others no difference is shown."
    ]


def _over_encoders(data: dict[str, Any]) -> list[str]:
    found = []
    for line in data["correlations"]:
        if (line["of"], line["with"]) == SCORE_WITH_ACCURACY and line["rho"] is not None and line["library"] != CONTROL:
            held = " once the score of random directions is held" if line["given"] else ""
            low, high = line["interval"] or (-1.0, 1.0)
            sure = "" if low > 0 or high < 0 else ", which is not shown to differ from 0"
            found.append(f"{line['library']} {line['rho']:+.2f} ({low:+.2f} to {high:+.2f}{sure}){held}")
    if not found:
        return []
    n = max(line["n"] for line in data["correlations"])
    return [f"Over {n} encoders the score goes with accuracy (Spearman): {'; '.join(found)}."]
