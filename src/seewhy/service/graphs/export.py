"""A classifier written as a graph that other runtimes run, checked against SeeWhy before its folder appears."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...arguments import checked
from ...classifiers.base import Classifier
from ...classifiers.saving import digest
from ...errors import DataError, ForeignFileError, ImageError, ModelError, SeeWhyError, UnknownNameError
from ...pictures.images import REDUCING_GAP, read_picture
from ...pictures.sources import Many, several
from ...storage.folders import exchanged_folder, write_inside
from ...storage.marks import Facts
from ...storage.output import check_folder, make_folder
from ...storage.reading import file_sha256, read_json
from ...types import Failure
from .check import TOLERANCE, Differences, compare, drawn
from .formats import Format, format_of
from .graph import Graph, said
from .layouts import LAYOUTS, Layout, Signature, model_name

CARD = "export.json"
FACTS = Facts(("format", "seewhy", "graph", "preprocessing", "files"))
FORMAT = 1
MOST = 64
"""Pictures compared on."""


@dataclass(frozen=True)
class Exported:
    """A graph that was written and checked.

    Attributes:
        folder: where it lies.
        card: what stands in ``export.json``.
        failures: pictures to compare on that could not be read.
    """

    folder: Path
    card: dict[str, Any]
    failures: tuple[Failure, ...] = ()

    @property
    def graph(self) -> Path:
        """The graph's file."""
        return self.folder / self.card["graph"]

    def to_json(self) -> dict[str, Any]:
        return {"folder": str(self.folder), **self.card, "failures": [f.to_json() for f in self.failures]}


@checked
def export(
    model: Classifier,
    folder: str | Path,
    *,
    to: str = "onnx",
    layout: str = "plain",
    name: str | None = None,
    pictures: Many | None = None,
) -> Exported:
    """Write a classifier as one graph: uint8 pictures in, decision and Grad-CAM out.

    The graph takes pictures in the encoder's size; resizing is the caller's part, and the card says how. Before the
    folder appears, the graph is run in its runtime and compared with what ``predict`` and ``explain`` compute.

    Args:
        model: what decides.
        folder: where to; a new name, or an earlier export as it was left.
        to: ``"onnx"`` or ``"openvino"``.
        layout: ``"plain"``; ``"triton"`` or ``"ovms"`` for a model repository of that server.
        name: of the model in a repository; left out, that of its folder.
        pictures: to compare on, 64 at most; left out, 8 drawn ones.

    Raises:
        UnknownNameError: there is no such format or layout.
        InputError: another precision than float32 is asked for.
        MissingExtraError: what writes and runs the format is not installed.
        ForeignFileError: something else has the folder's name.
        ModelError: this classifier cannot be a graph, or the graph answers otherwise.
        DataError: no picture to compare on can be read, or the folder cannot be written.
    """
    form = format_of(to)
    if layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, LAYOUTS)
    place = LAYOUTS[layout]
    folder = check_place(Path(folder))
    views, failures = _views(model, pictures)
    graph = Graph(model)
    named = model_name(name or (model.folder.name if model.folder is not None else model.recipe))
    try:
        with exchanged_folder(folder, is_untouched) as fresh:
            card = _write(fresh, model, graph, views, form, place, named, given=pictures is not None)
    except OSError as error:
        raise DataError(f"{folder} could not be written: {error}. Free some space or give another name.") from error
    return Exported(folder, card, failures)


def _write(
    fresh: Path,
    model: Classifier,
    graph: Graph,
    views: np.ndarray,
    form: Format,
    place: Layout,
    named: str,
    *,
    given: bool,
) -> dict[str, Any]:
    """Everything into a folder that is not seen yet, the card last."""
    size = model.encoder.transform.input_size
    home = make_folder(fresh / place.graph_folder(named))
    program = graph.program(size)
    try:
        opset = form.write(program, size, home, in_the_file(model))
        run = form.open(home)
    except (SeeWhyError, OSError):
        raise
    except Exception as error:
        raise ModelError(
            f"{form.name} has no such graph ({said(error)}). A classifier all of whose operations it knows was "
            "expected. Export to another format, or serve it with SeeWhy."
        ) from error
    found = compare(model, run, views)
    heat = run(views[:1], np.full((1, 1), -1))["heat"].shape[1:]
    inputs, outputs = signatures(len(model.classes), size, (heat[0], heat[1]))
    labels = "\n".join(" ".join(c.split()) for c in model.classes) + "\n"
    texts = {place.labels_file(named): labels, **place.files(named, form, inputs, outputs)}
    for file, text in texts.items():
        write_inside(fresh / file, text)
    card = {
        **_about(model, form, place, named, opset),
        "inputs": [one.to_json() for one in inputs],
        "outputs": [one.to_json() for one in outputs],
        "preprocessing": preprocessing(model),
        "check": _checked(form, found, len(views), given),
        "graph": str((Path(place.graph_folder(named)) / form.file).as_posix()),
        "files": digests(fresh),
    }
    write_inside(fresh / CARD, FACTS.put((json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode()))
    return card


def check_place(folder: Path) -> Path:
    """The folder, if an export can be written there; asked before the work begins."""
    if folder.exists() and not is_untouched(folder):
        raise ForeignFileError(
            f"{folder} exists and is not an export as SeeWhy left it. A new name, or one of those, was expected. "
            "Give another name."
        )
    return check_folder(folder)


def is_untouched(folder: Path) -> bool:
    """Whether a folder is an export that nobody has changed or put anything into; never raises for what is in it."""
    card = folder / CARD
    try:
        if card.is_symlink() or folder.is_symlink() or not FACTS.is_on(card):
            return False
        return bool(read_json(card)["files"] == digests(folder))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, but for the card."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files if path != folder / CARD}


def _views(model: Classifier, pictures: Many | None) -> tuple[np.ndarray, tuple[Failure, ...]]:
    """Pictures in the encoder's size, and those that could not be read."""
    transform = model.encoder.transform
    if pictures is None:
        return drawn(transform.input_size), ()
    views: list[np.ndarray] = []
    failures = []
    for one in several(pictures) or [pictures]:
        if len(views) == MOST:
            break
        try:
            views.append(read_picture(one, transform).pixels)
        except ImageError as error:
            failures.append(Failure(error.path, error.reason))
    if not views:
        raise DataError("None of the pictures to compare on can be read. One at least was expected. Give others.")
    return np.stack(views), tuple(failures)


def signatures(
    n_classes: int, size: tuple[int, int], grid: tuple[int, int]
) -> tuple[Sequence[Signature], Sequence[Signature]]:
    """Inputs and outputs of a graph."""
    return (
        Signature("picture", "uint8", (*size, 3), "RGB of 0 to 255, height by width, resized as below"),
        Signature("class_index", "int64", (1,), "of the class to be explained; -1 explains the one decided for"),
    ), (
        Signature("logits", "float32", (n_classes,), "of the classes"),
        Signature("probabilities", "float32", (n_classes,), "the scores of seewhy predict, adding up to 1"),
        Signature("heat", "float32", grid, "Grad-CAM, signed: above 0 speaks for the class explained"),
        Signature("explained", "int64", (1,), "index of the class explained"),
    )


def preprocessing(model: Classifier) -> dict[str, Any]:
    """What the caller does to a picture, and what the graph does then."""
    t = model.encoder.transform
    short = isinstance(t.resize, int)
    return {
        "by_the_caller": {
            "colours": "upright RGB, transparent places on white",
            "resize_short_side": t.resize if short else None,
            "resize_to": None if short else list(t.resize),  # type: ignore[arg-type]
            "centre_crop": list(t.input_size),
            "interpolation": t.interpolation,
            "antialias": True,
            "reducing_gap": REDUCING_GAP,
        },
        "by_the_graph": {"divide_by": 255, "mean": list(t.mean), "std": list(t.std)},
    }


def in_the_file(model: Classifier) -> dict[str, str]:
    """What the graph's own file says, for those who have it without the card: texts, all but the version JSON."""
    facts = {"classes": list(model.classes), "preprocessing": preprocessing(model), "encoder": model.encoder.name}
    said = {f"seewhy.{name}": json.dumps(fact, ensure_ascii=False) for name, fact in facts.items()}
    return {"seewhy": version("seewhy"), **said}


def _about(model: Classifier, form: Format, place: Layout, named: str, opset: int | None) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "seewhy": version("seewhy"),
        "name": named,
        "to": form.name,
        "layout": place.name,
        "server": f"{place.server}: not run" if place.server else None,
        "opset": opset,
        "made_with": form.versions(),
        "precision": "float32",
        "recipe": model.recipe,
        "encoder": model.encoder.name,
        "fingerprint": model.encoder.fingerprint,
        "classifier": digest(model),
        "fitted_in": model.fitted_in or None,
        "classes": list(model.classes),
    }


def _checked(form: Format, found: Differences, n: int, given: bool) -> dict[str, Any]:
    return {
        "pictures": n,
        "drawn": not given,
        "runtime": f"{form.extra} {form.versions()[form.extra]}",
        "against": "SeeWhy in eager torch, float32",
        "tolerance": TOLERANCE,
        "differences": found.to_json(),
    }
