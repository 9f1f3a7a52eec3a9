"""Results of the interpretability study: scores, their correlations with accuracy, and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifiers.encoded_set import EncodedSet
from ..heads.sparse_concepts import SPARSITIES
from ..report.blocks import Block, Chart, Curve, Document, Facts, Note, Section, Table, closing, points
from ..report.charts import colour_of
from .bootstrap import Combine, figure, paired, paired_means, percentiles, rounded
from .concepts import CONTROL, Parts, iis
from .pages import between, of_difference, parted
from .study import Row, from_bits

LEAST = 4
"""Smallest number of encoders for a correlation."""
LIBRARIES = {
    "prototype": ("Pieces of pictures", "Features of random patches of the training pictures."),
    "cluster": ("Kinds of pieces", "Centres of k-means clusters of such patches."),
    "text": (
        "Words",
        "Sentences, encoded by the encoder itself or, if it has no words, by another encoder (the judge).",
    ),
    "random": ("Random directions", "Control: random directions of the feature space, averaged over several draws."),
}
NUMBERS = {
    "iis": "score",
    "area": "mean sparse accuracy",
    "accuracy": "accuracy with all features",
    "neighbours": "accuracy of nearest neighbours, on other pictures",
    "iis of random": "score of random directions",
}
COLUMNS = (
    "encoder", "score", "interval", "score − random", "mean sparse accuracy", "accuracy, all features",
    "fewest concepts kept",
)  # fmt: skip
CAVEAT = "The score measures the accuracy of a few concepts, not whether people understand them."


@dataclass(frozen=True, eq=False)
class LibraryRow:
    """Results of a concept library for one encoder, averaged over draws."""

    right: Float[Tensor, "t s"]
    first: Row
    draws: int

    @classmethod
    def of(cls, found: Sequence[Row]) -> LibraryRow:
        right = [torch.tensor([from_bits(column) for column in row["right"]]).double().T for row in found]
        return cls(torch.stack(right).mean(0), found[0], len(found))


@dataclass(frozen=True, eq=False)
class EncoderRow:
    name: str
    fingerprint: str
    width: int
    right: Float[Tensor, " t"]
    neighbours: float
    libraries: dict[str, LibraryRow]


def findings(found: Sequence[EncoderRow], encoded: EncodedSet, parts: Parts, **how: Any) -> dict[str, Any]:
    """Return the scores, their correlations with accuracy, and the answer."""
    n_classes = len(set(encoded.labels.tolist()))
    # For two classes, twice chance is an accuracy of 1.
    floor = min(2 / n_classes, (1 + 1 / n_classes) / 2)
    encoders, rows = encoder_rows(found, floor, **how), library_rows(found, **how)
    data: dict[str, Any] = {
        "study": "interpretability", "n": int(parts.test.sum()), "n_train": int(parts.train.sum()),
        "n_selection": int(parts.selection.sum()), "n_classes": n_classes, "chance": round(1 / n_classes, 4),
        "floor": round(floor, 4), "sparsities": list(SPARSITIES), "encoders": encoders, "rows": rows,
        "correlations": correlations(encoders, rows, **how),
    }  # fmt: skip
    return {"sentence": answer(data), **data}


def encoder_rows(found: Sequence[EncoderRow], floor: float, **how: Any) -> list[dict[str, Any]]:
    drawn = paired_means(torch.stack([one.right for one in found], 1), **how)
    return [
        {
            "encoder": one.name, "fingerprint": one.fingerprint, "width": one.width, "accuracy": drawn.figure(i),
            "neighbours": round(one.neighbours, 4), "below_floor": bool(float(drawn.values[i]) < floor),
        }
        for i, one in enumerate(found)
    ]  # fmt: skip


def library_rows(found: Sequence[EncoderRow], **how: Any) -> list[dict[str, Any]]:
    """Return the results of each encoder and concept library, with bootstrap intervals from common resamples."""
    lines = [(one, library) for one in found for library in one.libraries]
    sums = torch.stack([torch.cat([one.right[:, None], one.libraries[name].right], 1) for one, name in lines], 1)
    scores: dict[str, Combine] = {
        "iis": lambda m: iis(m[..., 1:], m[..., 0]),
        "normalised": lambda m: iis(m[..., 1:], m[..., 0], normalised=True),
        "area": lambda m: iis(m[..., 1:], torch.ones_like(m[..., 0]), normalised=True),
    }
    drawn = {name: paired(sums, score, **how) for name, score in scores.items()}
    at = [(_column(j, by_whole=False), _column(j, by_whole=True)) for j in range(len(SPARSITIES))]
    drawn_at = [[paired(sums, column, **how) for column in both] for both in at]
    rows = []
    for i, (one, name) in enumerate(lines):
        own, first = one.libraries[name], one.libraries[name].first
        row = {
            "encoder": one.name, "library": name, "words_of": first["words_of"], "n_concepts": first["n_concepts"],
            "draws": own.draws, **{score: drawn[score].figure(i) for score in scores},
            "points": [
                {"sparsity": sparsity, "kept": kept, "used": used, "accuracy": own_at.figure(i), "arr": arr.figure(i)}
                for sparsity, kept, used, (own_at, arr)
                in zip(SPARSITIES, first["kept"], first["used"], drawn_at, strict=True)
            ],
        }  # fmt: skip
        if name != CONTROL and CONTROL in one.libraries:
            value, interval, real = drawn["iis"].difference(i, lines.index((one, CONTROL)))
            row["less_random"] = {**figure(value, interval), "real": real}
        rows.append(row)
    return rows


def _column(i: int, *, by_whole: bool) -> Combine:
    return lambda means: means[..., 1 + i] / (means[..., 0].clamp(min=1e-12) if by_whole else 1.0)


def correlations(
    encoders: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], **how: Any
) -> list[dict[str, Any]]:
    """Return rank correlations of score and accuracy over the encoders above the floor, if there are at least four.

    Accuracy is the denominator of the score, so there are also correlations of the numerator and partial correlations.
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
            ("iis", "accuracy", None), ("area", "accuracy", None), ("iis", "neighbours", None),
            ("iis", "neighbours", "accuracy"),
        ]  # fmt: skip
        if library != CONTROL and chance:
            asked.append(("iis", "accuracy", "iis of random"))
        for x, y, given in asked:
            rho, interval = rank_correlation(numbers[x], numbers[y], None if given is None else numbers[given], **how)
            found.append(
                {
                    "library": library, "of": x, "with": y, "given": given, "n": len(names),
                    "rho": None if rho is None else round(rho, 4),
                    "interval": None if interval is None else rounded(interval),
                }
            )  # fmt: skip
    return found


def rank_correlation(
    x: Sequence[float],
    y: Sequence[float],
    given: Sequence[float] | None = None,
    *,
    n_draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float | None, tuple[float, float] | None]:
    """Return Spearman's rho of two variables and its interval; with ``given``, the partial rank correlation::

        (r_xy - r_xz r_yz) / √((1 - r_xz²) (1 - r_yz²))

    The interval is a bootstrap interval over cases, without resamples in which a variable is constant.
    """
    table = torch.tensor([list(x), list(y), *([] if given is None else [list(given)])], dtype=torch.double)
    whole = _rho(table[:, None])[0]
    generator = torch.Generator().manual_seed(seed)
    drawn = _rho(table[:, torch.randint(table.shape[1], (n_draws, table.shape[1]), generator=generator)])
    drawn = drawn[drawn.isfinite()]
    enough = table.shape[1] >= LEAST and len(drawn) >= n_draws / 2
    interval = percentiles(drawn, level) if enough else None
    return float(whole) if bool(whole.isfinite()) else None, interval


def _rho(table: Float[Tensor, "v b n"]) -> Float[Tensor, " b"]:
    """Return the rank correlation of each resample; NaN if undefined."""
    from scipy.stats import rankdata

    places = torch.from_numpy(rankdata(table.numpy(), axis=-1))
    places = places - places.mean(-1, keepdim=True)
    norm = places.norm(dim=-1, keepdim=True)
    unit = torch.where(norm > 1e-9, places / norm.clamp(min=1e-9), torch.nan)
    xy = (unit[0] * unit[1]).sum(-1)
    if len(unit) == 2:
        return xy
    xz, yz = ((unit[i] * unit[2]).sum(-1) for i in (0, 1))
    left = (1 - xz.square()) * (1 - yz.square())
    return torch.where(left > 1e-9, (xy - xz * yz) / left.clamp(min=1e-9).sqrt(), torch.nan)


def answer(data: dict[str, Any]) -> str:
    rows, encoders = data["rows"], {one["encoder"]: one for one in data["encoders"]}
    concepts = [r for r in rows if r["library"] != CONTROL] or rows
    above = [r for r in concepts if not encoders[r["encoder"]]["below_floor"]]
    if not above:
        return (
            f"No encoder reaches an accuracy of {100 * data['floor']:.0f} % with all features. Below this floor, the "
            f"score is not meaningful. {CAVEAT}"
        )
    best = max(above, key=lambda r: float(r["iis"]["value"]))
    last, accuracy = best["points"][-1], encoders[best["encoder"]]["accuracy"]["value"]
    low, high = best["iis"]["interval"]
    first = (
        f"{best['encoder']} with {best['library']} concepts has the highest score: {best['iis']['value']:.3f} "
        f"({low:.3f} to {high:.3f}; {SPARSITIES[-1]} means no loss of accuracy). With {last['kept']} of "
        f"{best['n_concepts']} concepts per picture ({last['used']} different concepts in all), the accuracy is "
        f"{points(last['accuracy']['value'])} %; with all features, {points(accuracy)} %."
    )
    told = [first]
    if judged := [r["less_random"] for r in above if "less_random" in r]:
        ahead, behind = (sum(d["real"] and sign * d["value"] > 0 for d in judged) for sign in (1, -1))
        told.append(
            f"Concepts have a higher score than random directions in {ahead} of {len(judged)} comparisons, and a lower "
            f"score in {behind}. The others show no real difference."
        )
    lines = []
    for line in data["correlations"]:
        asked = {"of": "iis", "with": "accuracy"}.items() <= line.items() and line["library"] != CONTROL
        if asked and line["rho"] is not None:
            held = " with the score of random directions held constant" if line["given"] else ""
            low, high = line["interval"] or (-1.0, 1.0)
            sure = "" if low > 0 or high < 0 else ", not shown to differ from 0"
            lines.append(f"{line['library']} {line['rho']:+.2f} ({low:+.2f} to {high:+.2f}{sure}){held}")
    if lines:
        n = max(line["n"] for line in data["correlations"])
        told.append(f"Over {n} encoders, the score correlates with accuracy (Spearman): {'; '.join(lines)}.")
    return " ".join([*told, CAVEAT])


def interpretability_page(study: dict[str, Any]) -> Document:
    whole, how = {one["encoder"]: one for one in study["encoders"]}, study["settings"]
    sections: list[Block] = []
    for library in dict.fromkeys(row["library"] for row in study["rows"]):
        title, lead = LIBRARIES.get(library, (library, ""))
        rows = [row for row in study["rows"] if row["library"] == library]
        table = Table(COLUMNS, [_library_line(r, whole[r["encoder"]]) for r in rows])
        curves = []
        for i, row in enumerate(rows):
            kept = [(float(p["kept"]), p["accuracy"]["value"]) for p in row["points"]]
            own = whole[row["encoder"]]["accuracy"]["value"]
            n = f"{kept[-1][0]:.0f} concept{'s' * (kept[-1][0] != 1)}"
            said = f"all features {points(own)} %; {n} {points(kept[-1][1])} %"
            curves.append(Curve(kept, row["encoder"], said, colour_of(i), dashed=i >= 6))
        chart = Chart("Accuracy by concepts kept", curves, across="concepts kept per picture", log=True)
        sections.append(Section(title, [Note(lead), table, chart]))
    sections += _correlations_section(study["correlations"])
    facts = {one["encoder"]: f"{one['fingerprint']}, {one['width']} features" for one in study["encoders"]}
    over = "normalised over concepts" if how["layer_norm"] else "each concept normalised over pictures"
    facts["settings"] = (
        f"{how['n_concepts']} concepts, mask {how['mask']}, {over}, pieces of a {how['grid']} × {how['grid']} grid, "
        f"seed {how['seed']}"
    )
    rule = (
        "The score (IIS) divides the accuracy with few concepts by the accuracy with all features. It is the area "
        f"under this ratio over the sparsities {', '.join(f'{s:g}' for s in study['sparsities'])}, so "
        f"{study['sparsities'][-1]:g} means no loss of accuracy. An encoder with a low accuracy has little to lose, so "
        f"its score can be high. So SeeWhy ignores encoders with an accuracy below {100 * study['floor']:.0f} %, and "
        f"shows all accuracies. A difference is real, and coloured, if its paired bootstrap interval over test "
        f"pictures at {how['level'] * 100:g} % excludes 0."
    )
    sections.append(Section("How the score works", [Note(rule)]))
    sections += closing(study, "Notes on these figures")
    sections.append(Section("The encoders", [Facts(facts)], kind="provenance"))
    first, rest = parted(study["sentence"])
    above = (
        f"{study['n']} test pictures of {study['n_classes']} classes; {study['n_train']} pictures to train on, "
        f"{study['n_selection']} to choose settings on"
    )
    return Document("How much do a few concepts say?", first, sections, above, (rest,))


def _correlations_section(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    lead = (
        "Spearman's rank correlation over all encoders whose accuracy is above the floor. Intervals come from "
        "resampling encoders, so they are wide for few encoders. The score is divided by the accuracy with all "
        "features, so the two are not independent. So look also at the rows for the score before this division, for "
        "the accuracy on other pictures, and with a third number held constant."
    )
    lines = [
        (
            row["library"], NUMBERS[row["of"]], NUMBERS[row["with"]], NUMBERS.get(row["given"] or "", ""),
            "not defined" if row["rho"] is None else f"{row['rho']:+.2f}".replace("-", "−"),
            "" if row["interval"] is None else between(row["interval"], "+.2f"),
        )
        for row in rows
    ]  # fmt: skip
    table = Table(("concepts", "correlation of", "with", "held constant", "rho", "interval"), lines)
    return [Section("Does the score correlate with accuracy?", [Note(lead), table])] if rows else []


def _library_line(row: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[Any, ...]:
    words = f" (words of {row['words_of']})" if row["words_of"] not in (None, row["encoder"]) else ""
    floor = " (below the floor)" if own["below_floor"] else ""
    less, last, iis = row.get("less_random"), row["points"][-1], row["iis"]
    span = between(iis["interval"])
    over = None
    if less is not None:
        text = f"{less['value']:+.3f}".replace("-", "−")
        over = of_difference(less["value"], less["real"], text, between(less["interval"], "+.3f"))
    return (
        f"{row['encoder']}{words}{floor}", f"{iis['value']:.3f}", span, over, f"{points(row['area']['value'])} %",
        f"{points(own['accuracy']['value'])} %", f"{last['kept']} of {row['n_concepts']} ({last['used']} different)",
    )  # fmt: skip
