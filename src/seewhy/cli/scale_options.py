"""Options of the verbs that write a folder of Parquet files, and what they say at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .terminal import say

if TYPE_CHECKING:
    from ..scale.inputs import Input
    from ..scale.on_ray import Cluster
    from ..scale.run import Report
    from ..scale.work import Work
    from .terminal import Terminal

FOLDER_OR_ADDRESS = "FOLDER|ADDRESS"
"""What names a run's place: a folder, or one in object storage such as ``s3://bucket/vectors``."""
PartOption = Annotated[
    str,
    typer.Option(
        "--shard",
        help="Which part of the input, of how many: 3/16. Always the same pictures, whoever else runs; for Slurm "
        "arrays and xargs.",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, help="Processes on this machine, which share its cores.", show_default=False)
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="On Ray: local, this machine; auto, or HOST:PORT, the cluster that this machine belongs to. --workers are "
        "then actors there, each with --threads.",
        show_default=False,
    ),
]
Gpus = Annotated[float, typer.Option(min=0, help="With --cluster: GPUs that each worker has; 0.5 is shared by two.")]
Decoders = Annotated[
    int,
    typer.Option(
        min=0,
        help="With --cluster: tasks that read and decode apart from the workers, a shard each; 0 does so in them.",
    ),
]
Parquet = Annotated[
    bool,
    typer.Option(
        "--parquet",
        help="Many pictures: -o names a folder of Parquet files, one for each shard of the one input, as embed's.",
    ),
]
PerShard = Annotated[
    int,
    typer.Option(help="Pictures of a file, where the input has no shards of its own; a kill costs at most one.", min=1),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Threads that engine, decoders and torch together keep busy; left out, all cores.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Spread:
    """How the work is cut and spread; fields are the options above."""

    part: str
    per_shard: int
    column: str
    workers: int
    threads: int | None
    cluster: str | None = None
    gpus: float = 0.0
    decoders: int = 0

    def on(self) -> Cluster | None:
        """Where on Ray, if it is."""
        if self.cluster is None:
            return None
        from ..scale.on_ray import Cluster
        from ..threads import n_cores

        here = self.threads or n_cores() if self.cluster == "local" else (self.threads or 1) * self.workers
        return Cluster(self.cluster, self.workers, max(1, here // self.workers), self.gpus, self.decoders)

    def given(self, source: str) -> Input:
        """What was named."""
        from ..scale.inputs import find_input

        return find_input(source, per_shard=self.per_shard, column=None if self.column == "image" else self.column)


def run_on(work: Work, source: str, output: Path, spread: Spread, terminal: Terminal, as_json: bool) -> NoReturn:
    """Do the work on the input, say what was done, and end with the exit code."""
    from ..scale.run import Part, run

    spreading: dict[str, Any] = {"workers": spread.workers, "threads": spread.threads, "cluster": spread.on()}
    report = run(work, spread.given(source), output, part=Part.read(spread.part), **spreading, progress=terminal)
    if as_json:
        say(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        say(*_lines(report))
    raise typer.Exit(1 if report.failed or report.unread else 0)


def _lines(report: Report) -> list[str]:
    there = f", {report.there:,} were there" if report.there else ""
    of = f" of the {report.n_part:,} of this part" if report.n_part < report.n_shards else f" of {report.n_shards:,}"
    lines = [f"{report.output}: {report.done:,} shards done{of}{there}; {report.rows:,} rows"]
    if report.changed:
        lines.append(f"  done again: {report.changed:,}, whose pictures had been replaced")
    if report.failed:
        lines.append(f"  not readable: {report.failed:,}; the column error says why")
    if report.unread:
        lines.append(f"  shards left out: {len(report.unread):,}; they are tried again when this is run again")
    return lines
