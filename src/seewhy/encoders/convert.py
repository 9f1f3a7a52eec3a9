"""torch networks written as ONNX or OpenVINO, quietly and without a word to any web service."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..threads import n_forks

_log = logging.getLogger("seewhy")


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        yield


@cache
def openvino() -> ModuleType:
    """OpenVINO, which by itself reports every import and conversion to a web service; here it does not."""
    telemetry = sys.modules.get("openvino_telemetry")
    if telemetry is None:
        # OpenVINO takes a failed import as "not installed" and puts a stub in its place.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    else:
        with suppress(Exception):
            telemetry.Telemetry().consent = False
            telemetry.Telemetry.init = lambda *args, **kwargs: None
    import openvino

    return openvino


def openvino_core() -> Any:
    """OpenVINO's one ``Core`` of this process: one that is dropped in another thread than that which made it, as by a
    service that exchanges a model, leaves a freed stack for signals behind, and the next signal kills.
    """
    return _core(n_forks())


@cache
def _core(_n_forks: int) -> Any:
    return openvino().Core()


def to_openvino(network: nn.Module, example: Tensor) -> Any:
    """A network of one input as an OpenVINO model; traced where torch cannot export it."""
    with quiet(), torch.no_grad():
        try:
            return openvino().convert_model(torch.export.export(network, (example,)))
        except Exception as error:
            _log.info("torch.export failed (%s); tracing instead.", error)
            return openvino().convert_model(network, example_input=example, input=[tuple(example.shape)])


def write_openvino(model: Any, file: Path) -> None:
    """``file`` and, beside it, ``.bin``, with float32 kept."""
    openvino().save_model(model, file, compress_to_fp16=False)


def write_onnx(
    network: nn.Module | ExportedProgram, example: tuple[Tensor, ...], file: Path, *, inputs: Sequence[str],
    outputs: Sequence[str], beside: bool,
) -> None:  # fmt: skip
    """A network as ONNX; with ``beside``, its weights in a file of their own."""
    names: dict[str, Any] = {"input_names": list(inputs), "output_names": list(outputs)}
    with quiet(), torch.no_grad():
        torch.onnx.export(network, example, file, **names, dynamo=True, external_data=beside, verbose=False)
