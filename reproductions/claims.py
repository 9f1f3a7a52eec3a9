"""What every reproduction hands over: the paper's claims, what was measured, the verdict; as a table and as JSON.

A verdict is computed from the numbers by a rule that stands beside the claim, and is one of ``VERDICTS``. Files in
``reproductions/results/`` are what :meth:`Report.write` made; ``docs/reproductions.md`` and the pages below it are
generated from them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from seewhy.storage.marks import Facts
from seewhy.storage.output import make_folder, write
from seewhy.studies.bootstrap import Paired, paired

os.environ.setdefault("SEEWHY_PRECISION", "f32")  # as the committed results were made
Verdict = Literal["shown", "partly", "undecided", "not shown"]
VERDICTS: tuple[Verdict, ...] = ("shown", "partly", "undecided", "not shown")
FORMAT = 1
REPORT = Facts(("format", "name", "claims", "command"))


@dataclass(frozen=True)
class Claim:
    """One of the paper's claims and what became of it.

    Attributes:
        claim: what the paper says, in a sentence.
        rule: what must hold of the numbers for ``shown``, and what for ``partly``, if there is such a middle.
        measured: the numbers, with their intervals and those of the controls.
        verdict: what the rule gives on them.
        n: pictures (or what else was drawn) behind the numbers.
        section: what the claim belongs to, where a paper makes many.
    """

    claim: str
    rule: str
    measured: str
    verdict: Verdict
    n: int
    section: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"The verdict {self.verdict!r} was given. One of {', '.join(VERDICTS)} was expected.")
        for name in ("claim", "rule", "measured"):
            text = getattr(self, name)
            if not text.strip() or "\n" in text:
                raise ValueError(f"The {name} {text!r} was given. One line of text was expected.")


@dataclass(frozen=True)
class Report:
    """One run of one reproduction.

    Attributes:
        name: the script's stem, which is the file's in ``reproductions/results/``.
        title: the question, as the page's heading.
        paper: authors, year, arXiv number.
        data: which pictures, how many, under their public names.
        model: which network, and how accurate it was on what.
        command: as it was typed, folders shortened (see :func:`command`).
        machine: for example ``"2 CPU cores, torch 2.9"`` (see :func:`machine`).
        seconds: the run's duration, those of earlier parts of a resumed run with it.
        seed: of everything that is drawn.
        claims: in the order of the paper.
        differences: from the paper: what was smaller, other or left out; one sentence each.
        numbers: whatever else the run gave; small, and rounded (tables of the methods, intervals, checks).
    """

    name: str
    title: str
    paper: str
    data: str
    model: str
    command: str
    machine: str
    seconds: float
    seed: int
    claims: tuple[Claim, ...]
    differences: tuple[str, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.claims:
            raise ValueError(f"The report {self.name!r} has no claims. At least one was expected. Give what was found.")

    def write(self, path: Path) -> None:
        """Keep it as JSON, whole or not at all, over nothing but an earlier one."""
        make_folder(path.parent)
        write(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False), REPORT, force=None)

    def show(self, console: Console | None = None) -> None:
        """Print the table of claims."""
        table = Table(title=self.title, show_lines=True)
        for head in ("claim", "rule", "measured", "verdict"):
            table.add_column(head)
        for c in self.claims:
            table.add_row(
                f"{c.section}: {c.claim}" if c.section else c.claim, c.rule, f"{c.measured} (n={c.n})", c.verdict
            )
        (console or Console()).print(table)


def read_report(path: Path) -> Report:
    """What :meth:`Report.write` kept.

    Raises:
        ValueError: it is of another format, or a field is missing or unknown.
    """
    data = json.loads(path.read_text("utf-8"))
    if data.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is not of format {FORMAT}. Run the script again.")
    try:
        claims = tuple(Claim(**c) for c in data.pop("claims"))
        return Report(**{**data, "claims": claims, "differences": tuple(data.pop("differences", ()))})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a report: {error}. Run the script again.") from error


def verdict(shown: bool, partly: bool = False) -> Verdict:
    """The word for it.

    >>> verdict(False, partly=True)
    'partly'
    """
    return "shown" if shown else "partly" if partly else "not shown"


JUDGED = "shown: above 0 with its whole interval; not shown: below 0 with its whole interval; undecided: else"
"""The rule of :func:`judged`, in words."""


def judged(found: Interval) -> Verdict:
    """Of a difference that should lie above 0, by the rule :data:`JUDGED`.

    >>> judged(Interval(0.1, -0.1, 0.3))
    'undecided'
    """
    return "shown" if found.above else "not shown" if found.below else "undecided"


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval; in words ``0.712 (0.690–0.735)``."""

    value: float
    low: float
    high: float

    @property
    def above(self) -> bool:
        """Whether all of it lies above 0."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """Whether all of it lies below 0."""
        return self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def rounded(self) -> list[float]:
        """``[value, low, high]``, for the JSON."""
        return [round(v, 4) for v in (self.value, self.low, self.high)]


def mean_of(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean over pictures, resampled with replacement 2,000 times (percentiles)."""
    found = _resampled([values], seed)
    return Interval(float(found.values[0]), *found.interval(0))


def lead(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Interval:
    """Mean of ``a − b`` over the same pictures, resampled in pairs.

    Raises:
        ValueError: they are not of the same pictures.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} numbers were given. As many were expected: pictures go in pairs.")
    value, (low, high), _ = _resampled([a, b], seed).difference(0, 1)
    return Interval(value, low, high)


def table(columns: dict[str, list[float]]) -> dict[str, list[float]]:
    """``[mean, low, high]`` of every method's numbers, for the JSON."""
    return {name: mean_of(values).rounded() for name, values in columns.items()}


def _resampled(columns: Sequence[Sequence[float]], seed: int) -> Paired:
    sums = torch.tensor([list(c) for c in columns], dtype=torch.double).T[..., None]
    return paired(sums, lambda means: means[..., 0], seed=seed)


def parser(doc: str, name: str) -> argparse.ArgumentParser:
    """What all scripts have: the file's docstring with its examples as help, ``--seed``, and ``--out``.

    Args:
        doc: the script's ``__doc__``.
        name: the script's stem.
    """
    made = argparse.ArgumentParser(prog=name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    made.add_argument("--out", type=Path, help="where the report goes; a run that was stopped goes on from beside it")
    return made


def deliver(
    options: argparse.ArgumentParser, run: Callable[[argparse.Namespace], Report], given: Sequence[str] | None
) -> Report:
    """Read the arguments, run, show the report, and write it where ``--out`` says."""
    args = options.parse_args(given)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
    report = run(args)
    report.show()
    if args.out:
        report.write(args.out)
    return report


def command(name: str, given: Sequence[str] | None = None) -> str:
    """The command line as it can be printed: of folders on this machine only the last two names remain.

    Args:
        name: the script's stem.
        given: the arguments; left out, those of this run.

    >>> command("grad_cam", ["--pictures", "/home/me/data/grocery/train", "--out", "/tmp/x.json", "--n", "9"])
    'python reproductions/grad_cam.py --pictures grocery/train --n 9'
    """
    words, kept, drop = list(sys.argv[1:] if given is None else given), [], False
    for word in words:
        if drop or word == "--out" or word.startswith("--out="):
            drop = word == "--out"
            continue
        path = Path(word)
        kept.append("/".join(path.parts[-2:]) if path.is_absolute() else word)
    return " ".join(["python", f"reproductions/{name}.py", *kept])


def machine() -> str:
    """Cores, torch, and whether others were at work, which makes a duration longer; nothing that names the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = f", shared with other work (load {load:.0f})" if load > 1.5 * cores else ""
    return f"{cores} CPU cores ({platform.machine()}), torch {torch.__version__.split('+')[0]}{busy}"
