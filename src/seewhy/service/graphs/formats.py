"""The two formats: how a graph is written, and how a runtime opens what was written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.export import ExportedProgram

from ...encoders.convert import openvino, openvino_core, quiet, write_onnx, write_openvino
from ...errors import InputError, MissingExtraError, UnknownNameError
from ...storage.folders import write_inside
from ...storage.output import working_folder
from .graph import INPUTS, OUTPUTS

Run = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""``picture`` and ``class_index`` → outputs by name."""

TWO_GIGABYTES = 2**31 - 2**24


class Format(ABC):
    """A format.

    Class attributes:
        name: of the format, and of the extra it needs.
        file: the graph's file name.
        backend: Triton's name for the runtime.
        needs: modules that must be installed.
        made_with: packages whose versions its card names.
    """

    name: ClassVar[str]
    file: ClassVar[str]
    extra: ClassVar[str]
    backend: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    made_with: ClassVar[tuple[str, ...]]

    @abstractmethod
    def write(
        self, program: ExportedProgram, size: tuple[int, int], folder: Path, facts: Mapping[str, str]
    ) -> int | None:
        """Write the graph into a folder of SeeWhy's own, facts by name in its file; its opset, where it has one."""

    @abstractmethod
    def open(self, folder: Path) -> Run:
        """What runs it, in float32."""

    def versions(self) -> dict[str, str]:
        """Of torch and of what wrote it."""
        return {name: version(name) for name in ("torch", *self.made_with)}


class Onnx(Format):
    """ONNX; weights of 2 GB and more lie beside the graph."""

    name = "onnx"
    file = "model.onnx"
    extra = "onnxruntime"
    backend = "onnxruntime"
    needs = ("onnxruntime", "onnx", "onnxscript")
    made_with = ("onnx", "onnxscript", "onnxruntime")

    def write(
        self, program: ExportedProgram, size: tuple[int, int], folder: Path, facts: Mapping[str, str]
    ) -> int | None:
        import onnx

        self.write_graph(program, folder / self.file)
        made = onnx.load(folder / self.file, load_external_data=False)
        onnx.helper.set_model_props(made, dict(facts))
        write_inside(folder / self.file, made.SerializeToString())
        return next(int(one.version) for one in made.opset_import if one.domain == "")

    @staticmethod
    def write_graph(program: ExportedProgram, file: Path) -> None:
        """The graph, in one file where ONNX can."""
        tensors = (*program.state_dict.values(), *program.constants.values())
        big = sum(t.nbytes for t in tensors if hasattr(t, "nbytes")) > TWO_GIGABYTES
        write_onnx(program, (), file, inputs=INPUTS, outputs=OUTPUTS, beside=big)

    def open(self, folder: Path) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(folder / self.file, options, providers=["CPUExecutionProvider"])
        return lambda picture, index: dict(
            zip(OUTPUTS, session.run(list(OUTPUTS), dict(zip(INPUTS, (picture, index), strict=True))), strict=True)
        )


class OpenVino(Format):
    """OpenVINO's intermediate representation; weights lie in ``model.bin``."""

    name = "openvino"
    file = "model.xml"
    extra = "openvino"
    backend = "openvino"
    needs = ("openvino",)
    made_with = ("openvino",)

    def write(
        self, program: ExportedProgram, size: tuple[int, int], folder: Path, facts: Mapping[str, str]
    ) -> int | None:
        model = self._converted(program)
        for name, fact in facts.items():
            model.set_rt_info(fact, name)
        for port, name in zip((*model.inputs, *model.outputs), (*INPUTS, *OUTPUTS), strict=True):
            port.get_tensor().set_names({name})
        model.reshape({"picture": [-1, *size, 3], "class_index": [-1, 1]})
        write_openvino(model, folder / self.file)
        return None

    def _converted(self, program: ExportedProgram) -> Any:
        """Straight from torch, or by way of ONNX, of which OpenVINO knows operations that it does not know of torch."""
        try:
            with quiet():
                return openvino().convert_model(program)
        except Exception as error:
            if any(find_spec(module) is None for module in Onnx.needs):
                raise MissingExtraError(Onnx.extra, "Export of this classifier to openvino, by way of ONNX,") from error
        with working_folder(None) as there:
            Onnx.write_graph(program, there / Onnx.file)
            return openvino().convert_model(there / Onnx.file)

    def open(self, folder: Path) -> Run:
        compiled = openvino_core().compile_model(folder / self.file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(picture: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
            found = compiled(dict(zip(INPUTS, (picture, index), strict=True)))
            return {name: np.array(found[name]) for name in OUTPUTS}

        return run


FORMATS: dict[str, Format] = {one.name: one for one in (Onnx(), OpenVino())}


def format_of(to: str) -> Format:
    """The format by its name; ``:f32`` may follow."""
    name, _, precision = to.partition(":")
    if name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS)
    if precision not in ("", "f32"):
        raise InputError(
            f"A graph in {precision!r} was asked for. float32 was expected: what is rounded more coarsely is not equal "
            f"to predict and explain to 1e-4. Leave :{precision} out; runtimes round by themselves where told to."
        )
    if any(find_spec(module) is None for module in FORMATS[name].needs):
        raise MissingExtraError(FORMATS[name].extra, f"Export to {name}")
    return FORMATS[name]
