"""Convert torch networks to ONNX or OpenVINO, without telemetry."""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..threads import Together, n_forks


class _Hidden(threading.local):
    """A filter's pattern: it matches every warning of a thread inside :func:`quiet`, and none of another thread."""

    match: Callable[[str], Any] = re.compile("(?!)").match


_hidden = _Hidden()


def _hide() -> Callable[[], None]:
    """Add filters to the list that is in use, and take them out of it again: other filters may come and go."""
    kinds, filters = (FutureWarning, DeprecationWarning, torch.jit.TracerWarning), warnings.filters
    own: Any = [("ignore", _hidden, kind, None, 0) for kind in kinds]
    filters[:0] = own  # type: ignore[index]

    def undo() -> None:
        for listed in (filters, warnings.filters):
            for one in own:
                with suppress(ValueError):
                    listed.remove(one)  # type: ignore[attr-defined]

    return undo


_filters = Together(_hide)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings of libraries in this thread."""
    with _filters:
        _hidden.match = re.compile("").match
        try:
            yield
        finally:
            del _hidden.match


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
