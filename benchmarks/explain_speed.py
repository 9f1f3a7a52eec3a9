"""What an explanation costs, from files to answers, by public calls alone; beside other ways to the same map.

SeeWhy: ``classifier.predict_all(files)``, ``explain_all(files, measure=False)`` and, on fewer files, the full card,
``explain_all(files)``. Peers: pytorch-grad-cam as its README has it; frozen; with one layer open, which is the least it
can do; Captum frozen; OpenVINO by hand, which knows that behind a mean Grad-CAM is a row of weights times the features,
and works in the same precision. All start from file names and explain the class predicted. Memory that is freed is kept
for all alike.

    python benchmarks/explain_speed.py
    python benchmarks/explain_speed.py --pictures PHOTOS --engine openvino:f32 --rounds 9 --json
    python benchmarks/explain_speed.py --busy 2

Rounds are interleaved. Medians and best rounds are of the clock; CPU seconds count user and kernel time of all threads
and child processes, and on a busy machine are the ones to trust. ``--busy 2`` leaves the peers out and runs SeeWhy
alone and beside two programs that never wait, which it starts itself: CPU seconds should be the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grad_cam_peers as peers
import torch
from files_to_embeddings import SMALL, make_photographs
from rich.console import Console
from rich.table import Table
from side_by_side import alone_and_beside, in_turn, keep_memory, ratios
from torch import Tensor

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.encoders.find import encoder as load_encoder
from seewhy.explanation.base import Explanation, Where
from seewhy.pictures.sources import list_pictures

PREDICT, EXPLAIN, CARD = "SeeWhy, predict", "SeeWhy, explain", "SeeWhy, full card"
FAIR = "pytorch-grad-cam, one layer open"


def predict(classifier: Classifier, names: Sequence[str]) -> list[Any]:
    return list(classifier.predict_all(names))


def explain(classifier: Classifier, measure: bool, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The public call; classes and maps are only taken out to be compared."""
    found = [one for one in classifier.explain_all(names, measure=measure) if isinstance(one, Explanation)]
    classes = [classifier.index_of(one.prediction.label) for one in found]
    return torch.tensor(classes), torch.stack(
        [torch.from_numpy(one.where.heat) for one in found if isinstance(one.where, Where)]
    )


def contenders(engine: str) -> tuple[Classifier, dict[str, peers.Explain]]:
    classifier = seewhy.pretrained(load_encoder("lite0", engine=engine))
    short = "bf16" if classifier.encoder.engine.precision == "bfloat16" else "f32"

    def fresh() -> torch.nn.Module:
        return load_encoder("lite0", engine="torch").module

    def by_cam(tuned: str, workers: int) -> peers.Explain:
        module = fresh()
        return peers.pytorch_grad_cam(module, module.get_submodule("bn2"), tuned=tuned, workers=workers)

    other = fresh()
    return classifier, {
        FAIR: by_cam("one layer open", 0),
        f"{FAIR}, 2 workers": by_cam("one layer open", 2),
        "pytorch-grad-cam, frozen": by_cam("frozen", 0),
        "pytorch-grad-cam, README": by_cam("", 0),
        "Captum, frozen": peers.captum(other, other.get_submodule("bn2")),
        f"OpenVINO {short} by hand": peers.openvino_by_hand(fresh(), short),
    }


def measure(engine: str, names: Sequence[str], n_cards: int, rounds: int) -> dict[str, Any]:
    """Run everything ``rounds`` times in turn, after one round that does not count."""
    classifier, others = contenders(engine)
    ours = partial(explain, classifier, False)
    answers = {name: call(names) for name, call in others.items()}
    mine = ours(names)
    predict(classifier, names)
    explain(classifier, True, names[:2])
    programs: dict[str, Callable[[], Any]] = {
        PREDICT: partial(predict, classifier, names),
        EXPLAIN: partial(ours, names),
        CARD: partial(explain, classifier, True, names[:n_cards]),
        **{name: partial(call, names) for name, call in others.items()},
    }
    short = (PREDICT, EXPLAIN) * 3
    times = in_turn(programs, rounds, [*short, CARD, *others])
    pictures = {name: n_cards if name == CARD else len(names) for name in programs}
    card = {k: round(v * len(names) / n_cards, 1) for k, v in times[CARD].over(times[PREDICT]).items()}
    return {
        "engine": f"{classifier.encoder.engine.name} {classifier.encoder.engine.precision}",
        "files": len(names),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "ms_a_picture": {n: {k: v / pictures[n] * 1000 for k, v in t.to_json().items()} for n, t in times.items()},
        "explain_over_predict": times[EXPLAIN].over(times[PREDICT]),
        "card_over_predict": card,
        "times_faster": {name: times[name].over(times[EXPLAIN]) for name in others},
        "answers": {name: peers.agreement(mine, found) for name, found in answers.items()},
    }


def measure_busy(engine: str, names: Sequence[str], n_cards: int, rounds: int, n: int) -> dict[str, Any]:
    """SeeWhy alone and beside ``n`` busy programs, in milliseconds a picture, and how many times as much that is."""
    classifier = seewhy.pretrained(load_encoder("lite0", engine=engine))
    pictures = {PREDICT: list(names), EXPLAIN: list(names), CARD: list(names[:n_cards])}
    programs: dict[str, Callable[[], Any]] = {
        PREDICT: partial(predict, classifier, names),
        EXPLAIN: partial(explain, classifier, False, names),
        CARD: partial(explain, classifier, True, names[:n_cards]),
    }
    for program in programs.values():
        program()
    alone, beside = alone_and_beside(programs, rounds, n)
    return {
        "engine": f"{classifier.encoder.engine.name} {classifier.encoder.engine.precision}",
        "busy_programs": n,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "ms_a_picture": {
            name: {
                company: {k: v / len(pictures[name]) * 1000 for k, v in times[name].to_json().items()}
                for company, times in (("alone", alone), ("beside", beside))
            }
            for name in programs
        },
        "times_as_much": {name: beside[name].over(alone[name]) for name in programs},
    }


def show_busy(result: dict[str, Any], console: Console) -> None:
    title = f"lite0, {result['engine']}, {result['rounds']} rounds, beside {result['busy_programs']} busy programs"
    columns = ("", "CPU ms, alone", "beside", "times", "clock ms, alone", "beside", "times")
    table = Table(*columns, title=f"{title}, {result['threads']} torch threads")
    for name, ms in result["ms_a_picture"].items():
        row = [name]
        for kind in ("cpu_median", "median"):
            row += [f"{ms['alone'][kind]:.1f}", f"{ms['beside'][kind]:.1f}"]
            row.append(f"{result['times_as_much'][name][kind]:.2f}")
        table.add_row(*row)
    console.print(table)


def show(result: dict[str, Any], console: Console) -> None:
    title = (
        f"lite0, {result['engine']}, {result['files']} files, {result['rounds']} rounds, {result['threads']} threads"
    )
    columns = ("", "ms a picture", "CPU ms", "of it kernel", "SeeWhy explain is faster by", "same class", "correlation")
    table = Table(*columns, title=title)
    for name, ms in result["ms_a_picture"].items():
        faster, found = result["times_faster"].get(name), result["answers"].get(name)
        table.add_row(
            name,
            f"{ms['median']:.1f}",
            f"{ms['cpu_median']:.1f}",
            f"{ms['sys_median']:.1f}",
            ratios(faster) if faster else "",
            f"{found['same_class']}/{result['files']}" if found else "",
            f"≥ {found['least_correlation']}, median {found['median_correlation']}" if found else "",
        )
    console.print(table)
    console.print(f"An explanation costs {ratios(result['explain_over_predict'])} a prediction.")
    console.print(f"A full card costs {ratios(result['card_over_predict'])} a prediction.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="auto", help="auto, openvino:f32, openvino:bf16, onnxruntime, torch")
    parser.add_argument("--n", type=int, default=64, help="files")
    parser.add_argument("--cards", type=int, default=4, help="files of which full cards are made")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--threads", type=int, help="of torch, for all; 1 where other programs are running")
    parser.add_argument("--busy", type=int, metavar="N", help="SeeWhy alone and beside so many busy programs")
    parser.add_argument("--pictures", type=Path, help="a folder of photographs; made from samples where none is given")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    keep_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as made:
        if options.pictures is None:
            names = [str(p) for p in make_photographs(Path(made), options.n, SMALL)]
        else:
            names = [str(p) for p in list_pictures(options.pictures)][: options.n]
        if options.busy:
            result = measure_busy(options.engine, names, options.cards, options.rounds, options.busy)
        else:
            result = measure(options.engine, names, options.cards, options.rounds)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        (show_busy if options.busy else show)(result, Console(width=160))


if __name__ == "__main__":
    main()
