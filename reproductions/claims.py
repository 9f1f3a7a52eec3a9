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
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from rich.console import Console
from rich.table import Table

from seewhy.storage.marks import Facts
from seewhy.storage.output import make_folder, write
from seewhy.studies.claims import Interval, judged, lead, mean_of

os.environ.setdefault("SEEWHY_PRECISION", "f32")  # as the committed results were made
__all__ = ["COMMIT", "JUDGED", "VERDICTS", "Claim", "Interval", "Report", "Verdict", "command", "deliver", "judged"]
__all__ += ["lead", "machine", "mean_of", "parser", "read_report", "rule_of", "table", "verdict"]
Verdict = Literal["shown", "partly", "too small to tell", "not shown"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
FORMAT = 2
REPORT = Facts(("format", "name", "claims", "command"))


def _commit() -> str:
    """Of the code that runs, with a ``+`` where it was changed since; empty outside a repository."""
    git = ["git", "-C", str(Path(__file__).resolve().parents[1])]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=8", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "src", "reproductions/*.py"], check=False)
    return head.stdout.strip() + "+" * bool(changed.returncode)


COMMIT = _commit()
"""Read when a script starts: the code that runs is the code of then."""
HEADLINES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("headlines.toml").read_text("utf-8"))
"""By script: the claim of the abstract, and the paper's figure where one was verified."""


def rule_of(effect: float = 0.0) -> str:
    """Return the rule of :func:`seewhy.studies.claims.judged`, in words.

    >>> rule_of(0.05)
    "shown: above 0 with its whole interval; not shown: below 0.05, the paper's effect; too small to tell: else"
    """
    excluded = f"below {effect:g}, the paper's effect" if effect else "below 0 with its whole interval"
    return f"shown: above 0 with its whole interval; not shown: {excluded}; too small to tell: else"


JUDGED = rule_of()
"""The rule for papers without a comparable effect."""


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
        paper: the paper's figure and its place, such as ``"+5 points (abstract)"``; empty where none is verified.
        interval: ours, of what the verdict is about; None where it is not one number.
        headline: whether it is the claim of the paper's abstract (:data:`HEADLINES`).
    """

    claim: str
    rule: str
    measured: str
    verdict: Verdict
    n: int
    section: str = ""
    paper: str = ""
    interval: Interval | None = None
    headline: bool = False

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"The verdict {self.verdict!r} was given. Expected one of {', '.join(VERDICTS)}.")
        if not isinstance(self.interval, Interval | None):
            raise TypeError(f"The interval {self.interval!r} was given. Expected an Interval, or None.")
        for name in ("claim", "rule", "measured"):
            text = getattr(self, name)
            if not text.strip() or "\n" in text:
                raise ValueError(f"The {name} {text!r} was given. Expected one line of text.")


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
        commit: of the code that ran; a ``+`` behind it says that the code was changed since.
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
    commit: str = COMMIT

    def __post_init__(self) -> None:
        if not self.claims:
            raise ValueError(f"The report {self.name!r} has no claims. Expected at least one. Add what was measured.")
        if not any(c.headline for c in self.claims):
            object.__setattr__(self, "claims", _with_headline(self.claims, HEADLINES.get(self.name, {})))

    @property
    def headline(self) -> Claim:
        """The claim of the paper's abstract; the first where a run does not come to it."""
        return next((c for c in self.claims if c.headline), self.claims[0])

    def write(self, path: Path) -> None:
        """Keep it as JSON, whole or not at all, over nothing but an earlier one."""
        data = {"format": FORMAT, **asdict(self)}
        for row, claim in zip(data["claims"], self.claims, strict=True):
            row["interval"] = claim.interval and claim.interval.rounded()
        make_folder(path.parent)
        write(path, json.dumps(data, indent=1, ensure_ascii=False), REPORT, force=None)

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


def _with_headline(claims: Sequence[Claim], told: dict[str, str]) -> tuple[Claim, ...]:
    """Marks the first that begins as told, with the paper's figure."""
    for i, c in enumerate(claims):
        if told and c.claim.startswith(told["claim"]) and told.get("section", c.section) == c.section:
            return (*claims[:i], replace(c, headline=True, paper=c.paper or told.get("paper", "")), *claims[i + 1 :])
    return tuple(claims)


def read_report(path: Path) -> Report:
    """What :meth:`Report.write` kept; format 1 had ``undecided`` for ``too small to tell``, and no commit.

    Raises:
        ValueError: it is of another format, or a field is missing or unknown.
    """
    data = json.loads(path.read_text("utf-8"))
    version = data.pop("format", None)
    if version == 1:
        data = json.loads(json.dumps(data).replace("undecided", "too small to tell")) | {"commit": ""}
    elif version != FORMAT:
        raise ValueError(f"{path} is not of format {FORMAT}. Run the script again.")
    try:
        claims = tuple(
            Claim(**c, interval=interval and Interval(*interval))
            for c, interval in ((c, c.pop("interval", None)) for c in data.pop("claims"))
        )
        return Report(**{**data, "claims": claims, "differences": tuple(data.pop("differences", ()))})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a report: {error}. Run the script again.") from error


def verdict(shown: bool, partly: bool = False) -> Verdict:
    """The word for it.

    >>> verdict(False, partly=True)
    'partly'
    """
    return "shown" if shown else "partly" if partly else "not shown"


def table(columns: dict[str, list[float]]) -> dict[str, list[float]]:
    """``[mean, low, high]`` of every method's numbers, for the JSON."""
    return {name: mean_of(values).rounded() for name, values in columns.items()}


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
