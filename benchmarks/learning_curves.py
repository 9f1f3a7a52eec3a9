"""How well do the forms of `seewhy study scaling` predict 72 public learning curves, and do their intervals hold?

    python benchmarks/learning_curves.py benchmark.vision.csv

The file is `revisiting_neural_scaling_laws/data/benchmark.vision.csv` of google-research/google-research (Alabdulmohsin
et al. 2022, arXiv 2209.06640; Apache-2.0): 12 tasks of 6 networks, error by examples seen.

1. As the authors split them: fitted on what they mark for training, relative error (root mean square of differences of
   logarithms) on the rest, which is up to twice as large. Beside it their estimators M1 to M4, as they ran here
   (tests/golden/scaling_laws.json).
2. As the study meets curves: seven sizes over a factor of up to 64, the largest 1/4, 1/8, 1/16 or 1/32 of the last; the
   90 % interval at 1.5, 2 and 4 times the largest. The spread of a curve around its form was chosen on curves with even
   numbers in alphabetical order; the odd ones report.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from seewhy.studies.learning_curve import FORMS, SPREAD, LearningCurve, learning_curve, relative

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "scaling_laws.json"
AHEAD = (1.5, 2.0, 4.0)
N_SIZES, RATIO = 7, 64


def read(path: Path) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Task and network → examples seen and error, for fitting and for judging."""
    rows: dict[tuple[str, str], tuple[list, list]] = defaultdict(lambda: ([], []))
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            point = (float(row["Seen Examples"]), float(row["Loss"]))
            rows[row["Task"], row["Model"]][row["Training"] != "1"].append(point)
    return {k: tuple(torch.tensor(sorted(part)).double() for part in rows[k]) for k in sorted(rows)}  # type: ignore[misc]


def predicted(curves: dict) -> None:
    """Relative errors as the authors split the curves."""
    print(f"{'':24} mean   median  largest")
    theirs = json.loads(GOLDEN.read_text())["rmse"]
    with_m4 = {name for name, value in theirs["m4"].items() if value is not None}
    for form in FORMS:
        off = {}
        for key, (fit, judge) in curves.items():
            found = form.fit(fit[:, 0], fit[None, :, 1], relative(fit[:, 1]))
            said = form.predict(found, judge[:, 0])[0].clamp(min=1e-9)
            off["|".join(key)] = float((said.log() - judge[:, 1].log()).square().mean().sqrt())
        _line(form.name, list(off.values()))
        _line("  where M4 was run", [v for name, v in off.items() if name in with_m4])
    for name in ("m1", "m2", "m3", "m4"):
        _line(name.upper(), [v for v in theirs[name].values() if v is not None])


def _line(name: str, off: list[float]) -> None:
    values = torch.tensor(off)
    print(f"{name:24} {values.mean():.4f} {values.median():.4f} {values.max():.4f}  n={len(off)}")


def cut(curve: Tensor, noise: float) -> Iterator[LearningCurve]:
    """Seven sizes with the largest well below the last."""
    for part in (4, 8, 16, 32):
        most = float(curve[-1, 0]) * 0.96 / part
        least = max(most / RATIO, float(curve[0, 0]))
        wanted = torch.logspace(math.log2(least), math.log2(max(most, least)), N_SIZES, base=2).double()
        places = sorted({int((curve[:, 0] / n).log().abs().argmin()) for n in wanted})
        n, e = curve[places, 0], curve[places, 1]
        if most / least < 8 or len(places) < 6 or float(e[0]) <= 1.1 * float(e[-1]):
            continue
        drawn = torch.randn(200, len(n), generator=torch.Generator().manual_seed(0), dtype=torch.double)
        yield learning_curve(n, e, e * (noise * drawn).exp())


def near(curve: Tensor, n: float) -> float | None:
    """Mean error within 4 % of a size."""
    there = (curve[:, 0] / n).log2().abs() < 0.06
    return float(curve[there, 1].mean()) if bool(there.any()) else None


def intervals(curves: dict) -> None:
    """How often the 90 % interval holds the truth, by half and by how far ahead."""
    held: dict[tuple[int, float], list[tuple[bool, float, float]]] = defaultdict(list)
    for i, (fit, judge) in enumerate(curves.values()):
        curve = torch.cat([fit, judge])
        curve = curve[curve[:, 0].argsort()]
        last = curve[-40:, 1].log()
        noise = float((last[1:] - last[:-1]).std() / 2**0.5)
        for found in cut(curve, noise):
            for ahead in AHEAD:
                truth = near(curve, ahead * float(found.sizes[-1]))
                if truth is not None:
                    said = found.at(found.sizes[-1:] * ahead)[:, 0].clamp(min=1e-6).log()
                    low, middle, high = (float(said.quantile(q)) for q in (0.05, 0.5, 0.95))
                    off = math.log(truth)
                    held[i % 2, ahead].append((low <= off <= high, high - low, abs(off - middle)))
    print(f"spread {SPREAD} a doubling; 90 % intervals of the relative error")
    for (half, ahead), rows in sorted(held.items()):
        inside, wide, off = (torch.tensor([float(r[j]) for r in rows]) for j in range(3))
        print(
            f"{'chosen on' if half == 0 else 'reported '}  x{ahead:g}: held {inside.mean():.3f} of {len(rows)}, "
            f"median width {wide.median():.3f}, median error {off.median():.3f}"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("curves", type=Path)
    curves = read(options.parse_args().curves)
    predicted(curves)
    intervals(curves)


if __name__ == "__main__":
    main()
