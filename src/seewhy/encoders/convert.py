"""Convert torch networks to ONNX or OpenVINO, without telemetry."""

from __future__ import annotations

import os
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


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        yield


@cache
def openvino() -> ModuleType:
    """Import OpenVINO with its telemetry disabled."""
    telemetry = sys.modules.get("openvino_telemetry")
    if telemetry is None:
        # OpenVINO takes a failed import as "not installed" and puts a stub in its place.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    else:
        with suppress(Exception):
            telemetry.Telemetry().consent = False
            telemetry.Telemetry.init = lambda *args, **kwargs: None
    import openvino

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_end_idle_threads)
    return openvino


def _end_idle_threads() -> None:
    """End the threads that OpenVINO keeps after a network is gone.

    A forked process would run its networks on them, and wait forever, because it does not have them. A plugin ends them
    when it is deleted.
    """
    openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def openvino_core() -> Any:
    """Return OpenVINO's ``Core``, one per process."""
    return _core(n_forks())


@cache
def _core(_n_forks: int) -> Any:
    return openvino().Core()


def write_onnx(
    network: nn.Module | ExportedProgram, example: tuple[Tensor, ...], file: Path, *, inputs: Sequence[str],
    outputs: Sequence[str], beside: bool,
) -> None:  # fmt: skip
    """Write a network as ONNX; ``beside`` writes its weights to a separate file."""
    names: dict[str, Any] = {"input_names": list(inputs), "output_names": list(outputs)}
    with quiet(), torch.no_grad():
        torch.onnx.export(network, example, file, **names, dynamo=True, external_data=beside, verbose=False)
