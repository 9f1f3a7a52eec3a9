"""Run trunks with OpenVINO, ONNX Runtime or torch."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import platform
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import DataError, EngineError, MissingExtraError, UnknownNameError
from ..storage.cache import cache_dir
from ..storage.folders import drop_folder, new_folder, write_inside
from ..storage.output import temporary_folder
from ..storage.reading import file_sha256, read_json
from ..threads import bound_torch, for_torch, n_cores, n_forks, n_threads
from .convert import openvino, openvino_core, quiet, write_onnx

PRECISIONS = {"f32": "float32", "bf16": "bfloat16"}
VARIABLE = "SEEWHY_PRECISION"
"""Environment variable for the default precision."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.35}
"""Largest allowed difference from float32 torch, relative to the largest absolute feature of the picture."""
UNASKED = 0.05
"""Largest relative root-mean-square difference with which bfloat16 is chosen automatically."""


def named(precision: str, engine: str) -> str:
    """Return the full name of a precision, ``"f32"`` or ``"bf16"``; if it is empty, read it from the environment."""
    short = precision or ("" if engine == "onnxruntime" else os.environ.get(VARIABLE, ""))
    if short and short not in PRECISIONS:
        where = "" if precision else f" It was named in {VARIABLE}."
        raise EngineError(UnknownNameError("precision", short, PRECISIONS).message + where)
    return PRECISIONS.get(short, "")


def on_torch() -> str:
    """Return torch's default precision: bfloat16 on a GPU that supports it, otherwise float32."""
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def to_try(asked: str, is_native: bool) -> tuple[str, ...]:
    """Return the precisions to try for a converted trunk, in order."""
    return (asked,) if asked else ("bfloat16", "float32") if is_native else ("float32",)


def differs(got: Tensor, wanted: Tensor, precision: str) -> bool:
    """Check whether a converted trunk's output differs by more than its precision allows."""
    most = TOLERANCE[precision] * wanted.abs().max() + 1e-6
    return not (got.shape == wanted.shape and (got - wanted).abs().max() <= most)


def is_rough(got: Tensor, wanted: Tensor) -> bool:
    """Check whether the output differs too much for this precision to be chosen automatically."""
    return not (got - wanted).pow(2).mean().sqrt() <= UNASKED * wanted.pow(2).mean().sqrt() + 1e-6


_log = logging.getLogger("seewhy")


def kept_folder(name: str, build: Callable[[Path], None]) -> Path:
    """Return the folder ``name`` in the cache and build it if it is missing or damaged.

    If the cache is not writable, the folder is temporary. Several processes may call this function at the same time.
    """
    try:
        kept = cache_dir("engines") / name
        if _is_whole(kept):
            return kept
        try:
            with new_folder(kept) as fresh:
                build(fresh)
                write_inside(fresh / "digests.json", json.dumps(_digests(fresh)))
                if kept.exists() and not _is_whole(kept):
                    _log.warning("The converted network %s was damaged, so SeeWhy converted it again.", kept)
                    drop_folder(kept, r"trunk\..+|digests\.json|precision")
        except OSError as error:
            if not _is_whole(kept):  # otherwise another process wrote the same folder first
                why = (error.strerror or str(error)).lower()
                raise DataError(f"{kept.parent} cannot be written to: {why}.") from error
        return kept
    except DataError as error:
        cure = "Set SEEWHY_CACHE to a writable folder, or SeeWhy will convert the network again in every run."
        _log.warning("%s %s", error, cure)
    folder = temporary_folder()
    atexit.register(drop_folder, folder, r".+")
    build(folder)
    return folder


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name != "digests.json"}


def _is_whole(folder: Path) -> bool:
    try:
        return bool(read_json(folder / "digests.json") == _digests(folder))
    except (OSError, ValueError):
        return False


ENGINES = ("openvino", "onnxruntime", "torch")
"""Engines in the order in which ``auto`` tries them, the fastest first."""

_MODULES = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnx", "onnxscript"), "torch": ("torch",)}
_FORMAT = 3  # raise it when what is kept on disk changes
_first_run = threading.Lock()
_building = threading.RLock()  # warnings.catch_warnings is not thread-safe

_left: list[Any] = []
"""Engines of the parent process that a forked process must not free."""

Row = np.ndarray
FEATURES, MEAN = 0, 1
"""Indices of a converted trunk's outputs: features, and the mean ``(c,)`` of a feature map ``(c, h, w)``."""
Run = Callable[[Row, Sequence[int]], Sequence[Row]]
"""Function from a normalised picture ``(1, 3, h, w)`` to the requested outputs; the next call may overwrite them."""


class Engine(Protocol):
    """A thread-safe function that runs a trunk without gradients and returns float32."""

    name: str
    precision: str

    def __call__(self, pixels: Float[Tensor, "b 3 h w"]) -> Tensor: ...


class TorchEngine:
    """An engine that runs eager torch, on a GPU if available."""

    name = "torch"

    def __init__(self, trunk: nn.Module, precision: str = "") -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = precision or on_torch()
        self.trunk = trunk.to(self.device)
        convolutions = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)]
        parameters = sum(p.numel() for p in trunk.parameters())
        self._convolves = 2 * sum(p.numel() for m in convolutions for p in m.parameters()) > parameters

    @torch.no_grad()
    def __call__(self, pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
        half = self.precision == "bfloat16"
        # On a CPU, four maps at a time stay nearer the cache; matrix products of tokens want them all.
        step = 4 if self.device.type == "cpu" and self._convolves else max(len(pixels), 1)
        pixels = pixels.contiguous(memory_format=torch.channels_last)  # convolutions are up to half as fast without
        with for_torch(), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            parts = [self.trunk(part.to(self.device)) for part in pixels.split(step)]
        return torch.cat(parts).float().cpu()


class PictureEngine:
    """An engine that runs a converted trunk with one picture per core."""

    def __init__(
        self,
        name: str,
        precision: str,
        shapes: Sequence[tuple[int, ...]],
        streams: int,
        make_run: Callable[[bool], Run],
    ) -> None:
        self.name, self.precision = name, precision
        self._shapes, self._streams, self._make_run = tuple(shapes), streams, make_run
        self._pool = ThreadPoolExecutor(streams, thread_name_prefix=f"seewhy-{name}")
        self._local, self._wide_lock = threading.local(), threading.Lock()
        self._wide: Run | None = None
        self._has_run, self._n_forks = False, n_forks()
        self.again: Callable[[], PictureEngine] | None = None

    def __call__(self, pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
        return self._outputs(pixels, FEATURES)[0]

    @property
    def averages(self) -> bool:
        """Whether the engine also returns the spatial mean of its features."""
        return len(self._shapes) > 1

    def mean(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c"]:
        return self._outputs(pixels, MEAN)[0]

    def maps_and_means(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        return self._outputs(pixels, FEATURES, MEAN)

    def _outputs(self, pixels: Float[Tensor, "b 3 h w"], *which: int) -> list[Tensor]:
        if self._n_forks != n_forks() and self.again is not None:
            _left.append(dict(self.__dict__))  # kept, because its destructor would wait for threads
            self.__dict__.update({**self.again().__dict__, "again": self.again})
        batch = pixels.detach().cpu().numpy()
        outputs = [np.empty((len(batch), *self._shapes[output]), np.float32) for output in which]
        rows = range(len(batch))

        def run_row(run: Run, i: int) -> None:
            for whole, part in zip(outputs, run(batch[i : i + 1], which), strict=True):
                whole[i] = part[0]

        if not self._has_run and len(batch):
            # OpenVINO fills a C++ static during its first run; a second thread there deadlocks with the first.
            with _first_run:
                self._run_rows(run_row, len(batch), rows[:1])
            self._has_run, rows = True, rows[1:]
        self._run_rows(run_row, len(batch), rows)
        return [torch.from_numpy(output) for output in outputs]

    def _run_rows(self, run_row: Callable[[Run, int], None], n: int, rows: range) -> None:
        if n * 4 <= self._streams:
            with self._wide_lock:
                self._wide = self._wide or self._make_run(True)
                for i in rows:
                    run_row(self._wide, i)
        else:
            list(self._pool.map(lambda i: run_row(self._own_run(), i), rows))

    def _own_run(self) -> Run:
        if not hasattr(self._local, "run"):
            self._local.run = self._make_run(False)
        return self._local.run


class _WithMean(nn.Module):
    """A trunk that also returns the spatial mean of its feature map."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Tensor | tuple[Tensor, Tensor]:
        features: Tensor = self.trunk(pixels)
        return (features, features.mean((2, 3))) if features.ndim == 4 else features


def make_engine(name: str, trunk: Callable[[], nn.Module], input_size: tuple[int, int], key: str) -> Engine:
    bound_torch()
    engine, _, precision = name.partition(":")
    if engine not in ("auto", *ENGINES):
        raise EngineError(UnknownNameError("engine", engine, ("auto", *ENGINES)).message)
    asked = named(precision, engine)
    if engine != "auto":
        return _build(engine, asked, trunk, input_size, key)
    order = ("torch",) if torch.cuda.is_available() else tuple(e for e in ENGINES if _installed(e))
    for candidate in order[:-1]:
        try:
            return _build(candidate, named(precision, candidate), trunk, input_size, key)
        except EngineError as error:
            _log.warning("%s Trying the next engine.", error)
    return _build(order[-1], named(precision, order[-1]), trunk, input_size, key)


def available_engines() -> list[dict[str, str]]:
    """List the name, version, precision and a note for every engine; the version is empty if it is not installed."""
    rows = []
    for name in ENGINES:
        if not _installed(name):
            rows.append({"name": name, "version": "", "precision": "", "note": f"pip install 'seewhy[{name}]'"})
            continue
        unasked = on_torch() if name == "torch" else to_try("", _is_native(name))[0]
        note = "CPU, telemetry off" if name == "openvino" else "CPU"
        if name == "torch" and torch.cuda.is_available():
            note = torch.cuda.get_device_name()
        rows.append({"name": name, "version": version(name), "precision": named("", name) or unasked, "note": note})
    return rows


def _installed(engine: str) -> bool:
    return all(find_spec(module) is not None for module in _MODULES[engine])


def _build(
    engine: str, precision: str, trunk: Callable[[], nn.Module], input_size: tuple[int, int], key: str
) -> Engine:
    if not _installed(engine):
        raise MissingExtraError(engine, f"The engine {engine!r}")
    if engine == "torch":
        return TorchEngine(trunk().eval(), precision)
    if engine == "onnxruntime" and precision == "bfloat16":
        raise EngineError("The precision of the engine 'onnxruntime' must be f32, got bf16. Use 'openvino:bf16'.")
    convert, load = (_to_openvino, _load_openvino) if engine == "openvino" else (_to_onnx, _load_onnxruntime)
    tries = to_try(precision, _is_native(engine))
    # What OpenVINO compiled is tied to the processor, too.
    processor = (openvino_core().get_property("CPU", "FULL_DEVICE_NAME"),) if engine == "openvino" else ()
    made_for = (_FORMAT, key, input_size, engine, version(engine), tries, platform.machine(), *processor)

    def build(folder: Path) -> None:
        module = trunk().eval()
        example = torch.randn(1, 3, *input_size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            wanted = module(example)
        for candidate in tries:
            convert(_WithMean(module).eval(), example, folder, candidate)
            made = load(folder, candidate)
            got = made(example)
            wrong = differs(got, wanted, candidate)
            wrong |= made.averages and differs(made.mean(example), wanted.mean((2, 3)), candidate)
            if not wrong and (candidate == tries[-1] or not is_rough(got, wanted)):
                write_inside(folder / "precision", candidate)
                return
        raise EngineError(f"The output of the engine {engine!r} differs from torch's. Use engine='torch'.")

    try:
        with _building:
            folder = kept_folder(f"{engine}-{hashlib.sha256(repr(made_for).encode()).hexdigest()[:24]}", build)
            again = partial(load, folder, (folder / "precision").read_text())
            made = again()
            made.again = again
            return made
    except (EngineError, MissingExtraError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(".")
        raise EngineError(f"The engine {engine!r} cannot run this network: {reason}. Use engine='torch'.") from error


@cache
def _is_native(engine: str) -> bool:
    """Check whether the processor supports bfloat16 natively."""
    return engine == "openvino" and "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _to_openvino(module: nn.Module, example: Tensor, folder: Path, precision: str) -> None:
    with quiet(), torch.no_grad():
        try:
            model = openvino().convert_model(torch.export.export(module, (example,)))
        except Exception as error:
            _log.info("torch.export failed (%s); tracing instead.", error)
            model = openvino().convert_model(module, example_input=example, input=[tuple(example.shape)])
    model.reshape(list(example.shape))
    # Channels last, as pictures are and as processors convolve: no copy of a picture is turned round.
    last = openvino().preprocess.PrePostProcessor(model)
    last.input().tensor().set_layout(openvino().Layout("NHWC"))
    last.input().model().set_layout(openvino().Layout("NCHW"))
    model = last.build()
    openvino().save_model(model, folder / "trunk.xml", compress_to_fp16=False)
    # Importing what was compiled is four times as fast as compiling.
    compiled = openvino_core().compile_model(model, "CPU", _openvino_config("THROUGHPUT", precision))
    write_inside(folder / "trunk.blob", compiled.export_model().getvalue())


def _openvino_config(hint: str, precision: str) -> dict[str, str]:
    short = next(short for short, long in PRECISIONS.items() if long == precision)
    return {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": short}


def _load_openvino(folder: Path, precision: str) -> PictureEngine:
    core = openvino_core()
    narrow = core.import_model((folder / "trunk.blob").read_bytes(), "CPU", _openvino_config("THROUGHPUT", precision))

    def make_run(wide: bool) -> Run:
        compiled = narrow
        if wide:
            config = {**_openvino_config("LATENCY", precision), "INFERENCE_NUM_THREADS": str(n_threads())}
            compiled = core.compile_model(folder / "trunk.xml", "CPU", config)
        request = compiled.create_infer_request()

        def run(row: Row, which: Sequence[int]) -> Sequence[Row]:
            row = np.ascontiguousarray(row.transpose(0, 2, 3, 1), dtype=np.float32)
            outputs = request.infer([row], share_inputs=True, share_outputs=True)
            return [outputs[output] for output in which]

        return run

    streams = narrow.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    streams = max(1, streams * min(n_threads(), n_cores()) // n_cores())
    shapes = [tuple(output.shape)[1:] for output in narrow.outputs]
    return PictureEngine("openvino", precision, shapes, streams, make_run)


def _to_onnx(module: nn.Module, example: Tensor, folder: Path, precision: str) -> None:
    with torch.no_grad():
        names = ["features", "mean"] if isinstance(module(example), tuple) else ["features"]
    write_onnx(module, (example,), folder / "trunk.onnx", inputs=["pixels"], outputs=names, beside=True)


def _load_onnxruntime(folder: Path, precision: str) -> PictureEngine:
    import onnxruntime

    cores = n_threads()

    def session(threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads must not use cores
        return onnxruntime.InferenceSession(folder / "trunk.onnx", options, providers=["CPUExecutionProvider"])

    narrow = session(1)  # one session shared by all threads

    def make_run(wide: bool) -> Run:
        network = session(cores) if wide else narrow

        def run(row: Row, which: Sequence[int]) -> Sequence[Row]:
            row = np.ascontiguousarray(row, dtype=np.float32)
            return network.run([names[output] for output in which], {"pixels": row})

        return run

    names = [output.name for output in narrow.get_outputs()]
    shapes = [tuple(output.shape)[1:] for output in narrow.get_outputs()]
    return PictureEngine("onnxruntime", precision, shapes, cores, make_run)
