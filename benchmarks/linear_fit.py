"""SeeWhy's linear solvers beside scikit-learn's: seconds, objective and accuracy, in one run.

    python benchmarks/linear_fit.py [--features x.npy y.npy] [--json out.json]

scikit-learn runs twice: with its defaults, and with the tolerance its objective needs to come within 1e-4 of ours.
Accuracy is on a held-out quarter.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from seewhy.classifiers.lbfgs import Softmax, SquaredHinge
from seewhy.classifiers.solvers import fit_logistic, fit_svm


def synthetic(n: int, d: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy linear classes on features that look like rectified, pooled, unit-length ones."""
    g = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(n, d, generator=g).relu().sqrt())
    scores = (x - x.mean(0)) @ torch.randn(d, k, generator=g) + 0.3 * torch.randn(n, k, generator=g)
    return x, scores.argmax(1)


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
        "scikit-learn, same objective": LogisticRegression(C=c, tol=1e-6, max_iter=2000),
    }


def compare(name: str, solver: str, x: torch.Tensor, y: torch.Tensor, c: float) -> list[dict]:
    """One row per program."""
    k = int(y.max()) + 1
    test = torch.arange(len(y)) % 4 == 3
    xt, yt = x[~test].contiguous(), y[~test]
    rows = []

    def row(program: str, seconds: float, weight, bias) -> None:
        z = x[test].double() @ torch.as_tensor(weight).double().T + torch.as_tensor(bias).double()
        value = objective(solver, xt, yt, k, c, weight, bias)
        accuracy = float((z.argmax(1) == y[test]).double().mean())
        rows.append(
            {"case": name, "solver": solver, "C": c, "program": program}
            | {"seconds": seconds, "objective": value, "accuracy": accuracy}
        )

    start = time.perf_counter()
    fit = (fit_logistic if solver == "logistic" else fit_svm)(xt, yt, k, c)
    row("SeeWhy", time.perf_counter() - start, fit.weight, fit.bias)
    for program, model in peers(solver, c).items():
        start = time.perf_counter()
        model.fit(xt.numpy(), yt.numpy())
        row(program, time.perf_counter() - start, model.coef_, model.intercept_)
    for r in rows:
        r["times_our_seconds"] = r["seconds"] / rows[0]["seconds"]
        r["objective_ratio"] = r["objective"] / rows[0]["objective"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", nargs=2, metavar=("X", "Y"), help="(n, d) features and (n,) labels as .npy")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    cases = {"5,000 x 512, 100 classes": synthetic(5000, 512, 100)}
    if arguments.features:
        x, y = (torch.from_numpy(np.load(f)) for f in arguments.features)
        x = torch.nn.functional.normalize(x.float().sqrt())
        cases[f"{len(x):,} x {x.shape[1]:,}, {int(y.max()) + 1} classes"] = (x, y.long())
    fit_logistic(torch.randn(64, 8), torch.arange(64) % 2, 2)
    rows = []
    for name, (x, y) in cases.items():
        for solver, c in (("logistic", 1.0), ("logistic", 30.0), ("svm", 1.0)):
            rows += compare(name, solver, x, y, c)
    table = Table("case", "solver", "C", "program", "seconds", "x ours", "objective / ours", "accuracy")
    for r in rows:
        figures = f"{r['seconds']:.2f}", f"{r['times_our_seconds']:.1f}", f"{r['objective_ratio']:.5f}"
        table.add_row(r["case"], r["solver"], f"{r['C']:g}", r["program"], *figures, f"{100 * r['accuracy']:.2f} %")
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
