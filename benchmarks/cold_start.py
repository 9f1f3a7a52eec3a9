"""How long ``seewhy --help``, and ``predict`` and ``explain`` of a photograph take in a new process, and where it goes.

Caches on disk are warm: one run beforehand converts weights and network. Targets are 0.3, 1.5 and 2.5 seconds by
the clock of a quiet machine; CPU seconds are beside them, for one that is not. Python must keep its compiled files:
without (``PYTHONDONTWRITEBYTECODE`` in a fresh clone) every run compiles SeeWhy anew.

    python benchmarks/cold_start.py
    python benchmarks/cold_start.py --picture photo.jpg --engine torch --runs 7 --json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from side_by_side import in_turn

TARGETS = {"seewhy --help": 0.3, "seewhy predict": 1.5, "seewhy explain": 2.5}
STAGES = """
import json, sys, time
picture, engine, card = sys.argv[1:]
marks = [("start", time.perf_counter())]
def done(stage):
    marks.append((stage, time.perf_counter()))
import torch
done("import torch")
import seewhy, seewhy.evidence.batch, seewhy.classifiers.unfitted, seewhy.encoders.embedded
done("import seewhy")
encoder = seewhy.encoder("lite0", engine=engine)
done("read the weights")
encoder.engine
done("load the engine")
classifier = seewhy.pretrained(encoder)
done("texts of the classes")
classifier.predict(picture)
done("read and look at the picture")
classifier.explain(picture, measure=False)
done("explain, once more from the file")
why = classifier.explain(picture)
done("explain and measure")
why.save(card)
done("write the card")
print(json.dumps({b[0]: b[1] - a[1] for a, b in zip(marks, marks[1:])}))
"""
"""The same work as the command's, through the Python API, timed within one process."""


def run(command: Sequence[str]) -> str:
    """Standard output of a process that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{done.stderr}")
    return done.stdout


def commands(picture: Path, engine: str, folder: Path) -> dict[str, Callable[[], str]]:
    """What is timed; each explanation goes to a folder of its own, so that nothing is found done."""
    runs = iter(range(10**6))
    seewhy = [sys.executable, "-m", "seewhy"]
    return {
        "seewhy --help": lambda: run([*seewhy, "--help"]),
        "import torch": lambda: run([sys.executable, "-c", "import torch"]),
        "seewhy predict": lambda: run([*seewhy, "predict", str(picture), "--engine", engine, "--quiet"]),
        "seewhy explain": lambda: run(
            [*seewhy, "explain", str(picture), "--engine", engine, "-o", str(folder / f"why{next(runs)}"), "--quiet"]
        ),
    }


def stages(picture: Path, engine: str, runs: int, folder: Path) -> dict[str, float]:
    """Median seconds of each stage."""
    command = [sys.executable, "-c", STAGES, str(picture), engine, str(folder / "card.html")]
    found = [json.loads(run(command)) for _ in range(runs)]
    return {stage: round(median(one[stage] for one in found), 3) for stage in found[0]}


def measure(picture: Path, engine: str, runs: int, folder: Path) -> dict[str, Any]:
    programs = commands(picture, engine, folder)
    programs["seewhy explain"]()  # warm the caches on disk
    times = in_turn(programs, runs)
    return {
        "engine": engine,
        "runs": runs,
        "seconds": {n: t.to_json() for n, t in times.items()},
        "met": {name: times[name].median < target for name, target in TARGETS.items()},
        "stages": stages(picture, engine, runs, folder),
    }


def show(result: dict[str, Any], console: Console) -> None:
    table = Table(
        "new process", "median s", "best s", "CPU s", "target s", title=f"{result['runs']} runs, {result['engine']}"
    )
    for name, seconds in result["seconds"].items():
        target = TARGETS.get(name)
        goal = f"{target:g}, {'met' if result['met'][name] else 'MISSED'}" if target else ""
        table.add_row(name, *(f"{seconds[kind]:.2f}" for kind in ("median", "best", "cpu_median")), goal)
    console.print(table)
    parts = Table("stage, through the Python API", "median s")
    for stage, seconds in result["stages"].items():
        parts.add_row(stage, f"{seconds:.2f}")
    console.print(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="a photograph; left out, scikit-image's cat")
    parser.add_argument("--engine", default="auto", help="auto, openvino:f32, onnxruntime, torch, …")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        picture = options.picture or Path(made) / "photo.jpg"
        if options.picture is None:
            from PIL import Image
            from skimage import data

            Image.fromarray(data.chelsea()).save(picture, quality=95)
        result = measure(picture, options.engine, options.runs, Path(made))
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result, Console())


if __name__ == "__main__":
    main()
