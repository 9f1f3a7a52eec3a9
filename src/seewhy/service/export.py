"""Export a classifier to one ONNX graph with predictions and Grad-CAM."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, fx, nn
from torch._decomp import get_decompositions
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..arguments import checked
from ..attributions.grad_cam import GradCAM
from ..classifiers.base import Classifier
from ..classifiers.saving import digest
from ..encoders.base import EncoderOutput
from ..encoders.convert import quiet, write_onnx
from ..errors import DataError, ForeignFileError, ImageError, MissingExtraError, ModelError, SeeWhyError
from ..heads.head import Target
from ..pictures.images import REDUCING_GAP, read_picture
from ..pictures.sources import Many, several
from ..progress import Progress, shown
from ..storage.folders import new_folder, write_inside
from ..storage.marks import Facts
from ..storage.output import check_folder
from ..storage.reading import file_sha256, read_json, reason
from ..types import Failure

INPUTS = ("picture", "class_index")
OUTPUTS = ("logits", "probabilities", "heat", "explained")
MOST_IN_BATCH = 2**16
"""Maximum batch size of a graph."""
Run = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""Function from ``picture`` and ``class_index`` to the outputs by name."""
Views = UInt8[np.ndarray, "n h w 3"]
TWO_GIGABYTES = 2**31 - 2**24
FILE = "model.onnx"
RUNTIME = "onnxruntime"
"""Name of the runtime, of the extra and of Triton's backend."""
NEEDS = ("onnx", "onnxscript", "onnxruntime")
CARD = "export.json"
FACTS = Facts(("format", "seewhy", "graph", "preprocessing", "files"))
FORMAT = 1
MOST = 64
"""Maximum number of pictures in the comparison."""
TOLERANCE = 1e-4
"""Maximum difference of probabilities, and maximum relative difference of logits and heat."""
N_DRAWN = 8
LABELS = "labels.txt"


class Graph(nn.Module):
    """The exported module: ``(picture, class_index)`` → ``(logits, probabilities, heat, explained)``.

    The heat is Grad-CAM on the last feature map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        transform = classifier.encoder.transform
        self.register_buffer("mean", torch.from_numpy(np.array(transform.mean, np.float32) * np.float32(255)))
        self.register_buffer("std", torch.from_numpy(np.array(transform.std, np.float32) * np.float32(255)))
        self.trunk = on_cpu(classifier.encoder.trunk)
        with torch.no_grad():
            features = self.trunk(torch.zeros(1, 3, *transform.input_size))
        # Unlike any other axis length, so that the trace cannot confuse them.
        self.n_examples = next(n for n in range(2, 99) if n not in features.shape)
        self.tail = _traced(classifier, features.repeat(self.n_examples, *(1,) * (features.ndim - 1)))

    def forward(
        self, picture: UInt8[Tensor, "b h w 3"], class_index: Int[Tensor, "b 1"]
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"], Float[Tensor, "b gh gw"], Int[Tensor, "b 1"]]:
        pixels = ((picture.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        return self.tail(self.trunk(pixels), class_index)

    def program(self, size: tuple[int, int]) -> ExportedProgram:
        """Return the graph for pictures of this height and width, with a variable batch size."""
        example = torch.zeros(self.n_examples, *size, 3, dtype=torch.uint8)
        index = torch.full((self.n_examples, 1), -1)
        batch = Dim("batch", min=1, max=MOST_IN_BATCH)
        try:
            with quiet(), torch.no_grad():
                return torch.export.export(self.eval(), (example, index), dynamic_shapes=({0: batch}, {0: batch}))
        except Exception as error:
            raise ModelError(
                f"The trunk cannot be exported for a variable batch size ({said(error)}). Use the encoder "
                "lite0, or run seewhy serve."
            ) from error


def on_cpu(trunk: nn.Module) -> nn.Module:
    away = any(p.device.type != "cpu" for p in (*trunk.parameters(), *trunk.buffers()))
    return (copy.deepcopy(trunk).cpu() if away else trunk).eval()


def _traced(classifier: Classifier, features: Tensor) -> fx.GraphModule:
    """Trace ``predict`` and ``explain --where grad_cam`` after the trunk."""
    index = torch.full((len(features), 1), -1)

    def tail(features: Tensor, class_index: Tensor) -> tuple[Tensor, ...]:
        pooled = classifier.encoder.head(features)
        logits = classifier.head(pooled)
        explained = torch.where(class_index < 0, logits.argmax(1, keepdim=True), class_index)
        heat = GradCAM().attribute(classifier, EncoderOutput(features, pooled), Target(explained[:, 0]))
        return logits.detach(), logits.detach().softmax(1), heat.detach(), explained

    with sdpa_kernel(SDPBackend.MATH), quiet():  # the fast kernels have no plain backward
        tail(features, index)  # fills caches with numbers, before the trace
        try:
            plain = _plain()
            return make_fx(tail, plain, "symbolic", _allow_non_fake_inputs=True)(features, index)
        except Exception as error:
            raise ModelError(
                f"A {classifier.recipe!r} classifier on {classifier.encoder.name!r} cannot be exported, "
                f"because its head depends on the values of its input ({said(error)}). Export 'linear', 'zero_shot' or "
                "'neighbours', or run seewhy serve."
            ) from error


def _plain() -> dict[Any, Any]:
    aten = torch.ops.aten
    # The gradient of a norm needs its mean and scale, which the runtimes' own norms do not return.
    norms = get_decompositions([aten.native_layer_norm, aten.native_group_norm])
    return {**torch.export.default_decompositions(), **norms, aten.stack.default: _stack}


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Replace torch's decomposition of ``stack``, on which OpenVINO fails."""
    return torch.cat([one.unsqueeze(dim) for one in tensors], dim)


def said(error: Exception) -> str:
    """Return an exporter's error in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": .")


def write_graph(program: ExportedProgram, folder: Path, facts: Mapping[str, str]) -> int:
    """Write the graph and its metadata into a folder, and return its opset.

    Weights of 2 GB or more are written to a second file.
    """
    import onnx

    tensors = (*program.state_dict.values(), *program.constants.values())
    big = sum(t.nbytes for t in tensors if hasattr(t, "nbytes")) > TWO_GIGABYTES
    write_onnx(program, (), folder / FILE, inputs=INPUTS, outputs=OUTPUTS, beside=big)
    made = onnx.load(folder / FILE, load_external_data=False)
    onnx.helper.set_model_props(made, dict(facts))
    write_inside(folder / FILE, made.SerializeToString())
    return next(int(one.version) for one in made.opset_import if one.domain == "")


def open_graph(folder: Path) -> Run:
    """Return a function that runs the graph in float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])
    return lambda picture, index: dict(
        zip(OUTPUTS, session.run(list(OUTPUTS), dict(zip(INPUTS, (picture, index), strict=True))), strict=True)
    )


@dataclass(frozen=True)
class Exported:
    """A graph that was written and checked; ``card`` is the content of ``export.json``."""

    folder: Path
    card: dict[str, Any]
    failures: tuple[Failure, ...] = ()

    @property
    def graph(self) -> Path:
        return self.folder / self.card["graph"]

    def to_json(self) -> dict[str, Any]:
        return {"folder": str(self.folder), **self.card, "failures": [f.to_json() for f in self.failures]}


@checked
def export(
    model: Classifier, folder: str | Path, *, pictures: Many | None = None, progress: Progress | None = None
) -> Exported:
    """Export a classifier to one ONNX graph: uint8 pictures in, prediction and Grad-CAM out.

    The graph's input must have the encoder's size; ``export.json`` in the folder says how to resize pictures. Before
    the folder is written, the graph's outputs are compared with ``predict`` and ``explain``.

    Args:
        model: the classifier.
        folder: a new folder, or an earlier export that was not changed.
        pictures: pictures for the comparison, up to 64; default: 8 generated ones.
        progress: progress reporter.

    Raises:
        MissingExtraError: the packages for ONNX are not installed.
        ForeignFileError: the folder exists and is not an unchanged export.
        ModelError: the classifier cannot be exported, or the outputs of the graph differ.
        DataError: no picture for the comparison can be read, or the folder cannot be written.
    """
    if any(find_spec(module) is None for module in NEEDS):
        raise MissingExtraError(RUNTIME, "Export to ONNX")
    folder = check_place(Path(folder))
    views, failures = _views(model, pictures)
    try:
        with new_folder(folder, is_untouched) as fresh:
            card = _write(fresh, model, views, pictures is not None, progress)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {reason(error)}. Free some space, or give another folder."
        ) from error
    return Exported(folder, card, failures)


@shown("Writing the graph")
def _graph(model: Classifier, home: Path, progress: Progress | None = None) -> tuple[int, Run]:
    program = Graph(model).program(model.encoder.transform.input_size)
    facts = {"classes": list(model.classes), "preprocessing": preprocessing(model), "encoder": model.encoder.name}
    texts = {f"seewhy.{name}": json.dumps(fact, ensure_ascii=False) for name, fact in facts.items()}
    try:
        return write_graph(program, home, {"seewhy": version("seewhy"), **texts}), open_graph(home)
    except (SeeWhyError, OSError):
        raise
    except Exception as error:
        raise ModelError(
            f"This classifier cannot be exported to ONNX ({said(error)}). Run seewhy serve instead."
        ) from error


def _write(
    fresh: Path, model: Classifier, views: np.ndarray, has_pictures: bool, progress: Progress | None
) -> dict[str, Any]:
    opset, run = _graph(model, fresh, progress)
    differences = compare(model, run, views, progress)
    heat = run(views[:1], np.full((1, 1), -1))["heat"].shape[1:]
    inputs, outputs = signatures(len(model.classes), model.encoder.transform.input_size, (heat[0], heat[1]))
    write_inside(fresh / LABELS, "\n".join(" ".join(c.split()) for c in model.classes) + "\n")
    made_with = {name: version(name) for name in ("torch", *NEEDS)}
    card = {
        "format": FORMAT,
        "seewhy": version("seewhy"),
        "to": "onnx",
        "opset": opset,
        "made_with": made_with,
        "precision": "float32",
        "recipe": model.recipe,
        "encoder": model.encoder.name,
        "fingerprint": model.encoder.fingerprint,
        "classifier": digest(model),
        "fitted_in": model.fitted_in or None,
        "classes": list(model.classes),
        "inputs": inputs,
        "outputs": outputs,
        "preprocessing": preprocessing(model),
        "check": {
            "pictures": len(views),
            "drawn": not has_pictures,
            "runtime": f"{RUNTIME} {made_with[RUNTIME]}",
            "against": "SeeWhy in eager torch, float32",
            "tolerance": TOLERANCE,
            "differences": {name: float(f"{value:.2g}") for name, value in differences.items()},
        },
        "graph": FILE,
        "files": digests(fresh),
    }
    write_inside(fresh / CARD, FACTS.put((json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode()))
    return card


def check_place(folder: Path) -> Path:
    """Return the folder, after a check that an export can be written there."""
    if folder.exists() and not is_untouched(folder):
        raise ForeignFileError(f"{folder} exists and is not an unchanged export of SeeWhy. Give another name.")
    return check_folder(folder)


def is_untouched(folder: Path) -> bool:
    """Return whether a folder is an unchanged export."""
    card = folder / CARD
    try:
        if card.is_symlink() or folder.is_symlink() or not FACTS.is_on(card):
            return False
        return bool(read_json(card)["files"] == digests(folder))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder except the card."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files if path != folder / CARD}


def _views(model: Classifier, pictures: Many | None) -> tuple[np.ndarray, tuple[Failure, ...]]:
    transform = model.encoder.transform
    if pictures is None:
        return drawn(transform.input_size), ()
    views: list[np.ndarray] = []
    failures = []
    for picture in several(pictures) or [pictures]:
        if len(views) == MOST:
            break
        try:
            views.append(read_picture(picture, transform).pixels)
        except ImageError as error:
            failures.append(Failure(error.path, error.reason))
    if not views:
        raise DataError("None of the pictures for the comparison can be read. Give other pictures.")
    return np.stack(views), tuple(failures)


Tensors = list[dict[str, Any]]


def signatures(n_classes: int, size: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensors, Tensors]:
    """Return the signatures of the inputs and outputs; the first axis of every shape is the batch."""
    inputs = {
        "picture": ("uint8", (*size, 3), "RGB of 0 to 255, height by width, resized as below"),
        "class_index": ("int64", (1,), "class to explain; -1 explains the predicted class"),
    }
    outputs = {
        "logits": ("float32", (n_classes,), "of the classes"),
        "probabilities": ("float32", (n_classes,), "scores of seewhy predict, which add up to 1"),
        "heat": ("float32", grid, "Grad-CAM, signed: values above 0 support the explained class"),
        "explained": ("int64", (1,), "index of the explained class"),
    }
    ins, outs = (
        [{"name": n, "type": kind, "shape": ["batch", *shape], "what": what} for n, (kind, shape, what) in part.items()]
        for part in (inputs, outputs)
    )
    return ins, outs


def preprocessing(model: Classifier) -> dict[str, Any]:
    """Return the preprocessing by the caller and by the graph."""
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


def drawn(size: tuple[int, int], n: int = N_DRAWN, seed: int = 0) -> Views:
    """Return generated pictures of coloured waves and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    turns = random.uniform(0.5, 12, (n, 3, 2, 1, 1)) * random.choice([-1, 1], (n, 3, 2, 1, 1))
    waves = np.sin(2 * np.pi * (turns[:, :, 0] * y + turns[:, :, 1] * x) + random.uniform(0, 6, (n, 3, 1, 1)))
    noise = random.normal(0, 25, (n, 3, *size))
    return np.clip(127 + 100 * waves + noise, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def answers(
    classifier: Classifier, views: UInt8[np.ndarray, "b h w 3"], index: Int[Tensor, " b"] | None = None
) -> dict[str, Tensor]:
    """Return the expected outputs by name, computed in eager torch and float32."""
    encoder = classifier.encoder
    with torch.no_grad():
        features = on_cpu(encoder.trunk)(encoder.pixels(list(views)))
        encoded = EncoderOutput(features, encoder.head(features))
        logits = classifier.head(encoded.pooled)
    explained = logits.argmax(1) if index is None else index
    heat = GradCAM()(classifier, encoded, Target(explained))
    probabilities = classifier.head.probabilities(encoded.pooled)
    return {"logits": logits, "probabilities": probabilities, "heat": heat, "explained": explained[:, None]}


@shown("Comparing the graph with SeeWhy")
def compare(classifier: Classifier, run: Run, views: Views, progress: Progress | None = None) -> dict[str, float]:
    """Return the largest differences of the graph on a batch and on one picture, for predicted and given classes.

    They are relative for logits and heat, as in ``TOLERANCE``.
    """
    every = torch.arange(len(views)) % len(classifier.classes)
    cases: Sequence[tuple[Any, Tensor | None]] = ((views, None), (views[:1], None), (views, every))
    differences = []
    for pictures, index in cases:
        given = torch.full((len(pictures),), -1) if index is None else index
        got = {name: torch.from_numpy(a) for name, a in run(pictures, given[:, None].numpy()).items()}
        # If two classes are equal up to rounding, the graph may choose the other one.
        wanted = answers(classifier, pictures, got["explained"][:, 0] if index is None else index)
        differences.append(_differences(got, wanted, chosen=index is None))
    whole = {name: max(one[name] for one in differences) for name in differences[0]}
    if not max(whole.values()) <= TOLERANCE:
        raise ModelError(
            f"The outputs of the graph must differ from SeeWhy's by at most {TOLERANCE:.0e}, got "
            f"{max(whole.values()):.1g} on {len(views)} pictures. Report this."
        )
    return whole


def _differences(got: dict[str, Tensor], wanted: dict[str, Tensor], *, chosen: bool) -> dict[str, float]:
    if any(got[name].shape != wanted[name].shape for name in wanted) or not got["explained"].equal(wanted["explained"]):
        return dict.fromkeys(("logits", "probabilities", "heat"), float("inf"))
    logits, heat = wanted["logits"], wanted["heat"]
    largest = logits.abs().amax(1, keepdim=True).clamp(min=1)
    short = (logits.amax(1, keepdim=True) - logits.gather(1, wanted["explained"])) * chosen
    return {
        "logits": _most((got["logits"] - logits).abs() / largest, short / largest),
        "probabilities": _most((got["probabilities"] - wanted["probabilities"]).abs()),
        "heat": _most((got["heat"] - heat).abs() / heat.abs().amax((1, 2), keepdim=True).clamp(min=1e-12)),
    }


def _most(*values: Tensor) -> float:
    return max(float(v.nan_to_num(torch.inf).max()) for v in values)
