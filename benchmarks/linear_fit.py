"""SeeWhy's linear solvers beside scikit-learn's: seconds, objective and accuracy, in one run.

    python benchmarks/linear_fit.py [--features x.npy y.npy] [--json out.json]

Ours runs at three tolerances; the first, 1e-4, is the linear recipe's. scikit-learn runs twice: with its defaults,
which at large C stop early, and with tol=1e-6, which reaches the least objective. Two comparisons are fair: seconds at
equal accuracy on the held-out quarter, and seconds at objectives within 1e-4 of each other. The last rows choose C
among nine. Give both sides the same threads (OMP_NUM_THREADS, OPENBLAS_NUM_THREADS), and unset OPENBLAS_CORETYPE, which
can hold numpy back.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from seewhy.classifiers.linear.choosing import c_path
from seewhy.classifiers.linear.solvers import Softmax, SquaredHinge, fit_linear

TOLERANCES = (1e-4, 1e-3, 1e-6)
"""The first is what the linear recipe uses."""


def synthetic(n: int, d: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping classes on features that look like rectified, pooled, unit-length ones of falling variance."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(k, (n,), generator=g)
    latent = torch.randn(k, 64, generator=g)[y] + 1.5 * torch.randn(n, 64, generator=g)
    x = latent @ torch.randn(64, d, generator=g) + 2 * torch.randn(n, d, generator=g)
    return torch.nn.functional.normalize(x.relu().sqrt()), y


def objective(solver: str, x: torch.Tensor, y: torch.Tensor, k: int, c: float, weight, bias) -> float:
    """The minimised function at these weights, in float64."""
    weight, bias = torch.as_tensor(weight).double(), torch.as_tensor(bias).double()
    loss = (Softmax if solver == "logistic" else SquaredHinge)(y, k, torch.ones(len(y)))
    penalty = weight.square().sum() + (bias.square().sum() if solver == "svm" else 0)
    return c * loss.value(x.double() @ weight.T + bias) + 0.5 * float(penalty)


def peers(solver: str, c: float) -> dict[str, LogisticRegression | LinearSVC]:
    if solver == "svm":
        return {"scikit-learn": LinearSVC(C=c, dual=False)}
    return {
        "scikit-learn, default": LogisticRegression(C=c),
        "scikit-learn, tol 1e-6": LogisticRegression(C=c, tol=1e-6, max_iter=2000),
    }


Fitted = tuple[Any, Any]
"""Weight and bias."""


def least_seconds(programs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, Any]]:
    """Seconds and result of each program; they take turns."""
    found: dict[str, tuple[float, Any]] = {}
    for _ in range(rounds):
        for name, program in programs.items():
            start = time.perf_counter()
            result = program()
            seconds = time.perf_counter() - start
            found[name] = min(seconds, found[name][0] if name in found else seconds), result
    return found


def compare(name: str, solver: str, x: torch.Tensor, y: torch.Tensor, c: float, rounds: int) -> list[dict]:
    """One row per program."""
    k = int(y.max()) + 1
    test = torch.arange(len(y)) % 4 == 3
    xt, yt = x[~test].contiguous(), y[~test]
    solve = partial(fit_linear, solver=solver)

    def ours(tol: float) -> Fitted:
        fit = solve(xt, yt, k, c, tol=tol)
        return fit.weight, fit.bias

    def theirs(model: LogisticRegression | LinearSVC) -> Fitted:
        model.fit(xt.numpy(), yt.numpy())
        return model.coef_, model.intercept_

    programs: dict[str, Callable[[], Fitted]] = {f"SeeWhy, tol {t:g}": partial(ours, t) for t in TOLERANCES}
    programs |= {n: partial(theirs, model) for n, model in peers(solver, c).items()}
    rows = []
    for program, (seconds, (weight, bias)) in least_seconds(programs, rounds).items():
        z = x[test].double() @ torch.as_tensor(weight).double().T + torch.as_tensor(bias).double()
        value = objective(solver, xt, yt, k, c, weight, bias)
        accuracy = float((z.argmax(1) == y[test]).double().mean())
        rows.append(
            {"case": name, "solver": solver, "C": c, "program": program}
            | {"seconds": seconds, "objective": value, "accuracy": accuracy}
        )
    for r in rows:
        r["times_our_seconds"] = r["seconds"] / rows[0]["seconds"]
        r["objective_ratio"] = r["objective"] / min(q["objective"] for q in rows)
    return rows


def sweep(name: str, x: torch.Tensor, y: torch.Tensor, rounds: int) -> list[dict]:
    """The choice of C among nine on a held-out quarter: our warm-started path, and scikit-learn C by C."""
    k = int(y.max()) + 1
    test = torch.arange(len(y)) % 4 == 3
    grid = [10.0 ** (e / 2) for e in range(-2, 7)]
    xt, yt, xh, yh = (t.numpy() for t in (x[~test], y[~test], x[test], y[test]))

    def ours() -> tuple[float, float]:
        best = c_path(x, y, k, torch.where(test, 0, -1), grid=grid).best
        return best.c, best.accuracy

    def theirs() -> tuple[float, float]:
        scores = {c: LogisticRegression(C=c).fit(xt, yt).score(xh, yh) for c in grid}
        best = max(scores, key=scores.__getitem__)
        return best, scores[best]

    found = least_seconds({"SeeWhy, path": ours, "scikit-learn, default": theirs}, rounds)
    return [
        {"case": name, "solver": "sweep of C", "C": c, "program": program, "seconds": s, "accuracy": accuracy}
        | {"times_our_seconds": s / found["SeeWhy, path"][0], "objective": None, "objective_ratio": None}
        for program, (s, (c, accuracy)) in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", nargs=2, metavar=("X", "Y"), help="(n, d) features and (n,) labels as .npy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    cases = {"5,000 x 512, 100 classes": synthetic(5000, 512, 100)}
    if arguments.features:
        x, y = (torch.from_numpy(np.load(f)) for f in arguments.features)
        x = torch.nn.functional.normalize(x.float().sqrt())
        cases[f"{len(x):,} x {x.shape[1]:,}, {int(y.max()) + 1} classes"] = (x, y.long())
    fit_linear(torch.randn(64, 8), torch.arange(64) % 2, 2)
    rows = []
    for name, (x, y) in cases.items():
        for solver, c in (("logistic", 1.0), ("logistic", 30.0), ("svm", 1.0)):
            rows += compare(name, solver, x, y, c, arguments.rounds)
        rows += sweep(name, x, y, arguments.rounds)
    table = Table("case", "solver", "C", "program", "seconds", "x first row", "objective / least", "accuracy")
    for r in rows:
        figures = (
            f"{r['seconds']:.2f}",
            f"{r['times_our_seconds']:.1f}",
            "-" if r["objective_ratio"] is None else f"{r['objective_ratio']:.5f}",
        )
        table.add_row(r["case"], r["solver"], f"{r['C']:g}", r["program"], *figures, f"{100 * r['accuracy']:.2f} %")
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
