"""Where the files of a graph lie: alone, in a model repository of Triton, or in one of OpenVINO Model Server."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .formats import Format

LABELS = "labels.txt"
MAX_BATCH = 32
"""Pictures that a server puts into one batch at most, as its file says; the graph takes more."""
TYPES = {"uint8": "TYPE_UINT8", "int64": "TYPE_INT64", "float32": "TYPE_FP32"}
"""Of tensors, as Triton writes them."""


@dataclass(frozen=True)
class Signature:
    """An input or output of a graph.

    Attributes:
        name: of the tensor.
        type: of its numbers.
        shape: without the batch, which comes first.
        what: it is.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    what: str

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "type": self.type, "shape": ["batch", *self.shape], "what": self.what}


class Layout(ABC):
    """A layout.

    Class attributes:
        name: of the layout.
        server: that reads it; empty where none does.
    """

    name: ClassVar[str]
    server: ClassVar[str] = ""

    def graph_folder(self, name: str) -> str:
        """Where the graph's files lie below the root."""
        return f"{name}/1"

    def labels_file(self, name: str) -> str:
        """Where the classes' names lie, one a line, in the order of the outputs."""
        return f"{name}/{LABELS}"

    @abstractmethod
    def files(
        self, name: str, form: Format, inputs: Sequence[Signature], outputs: Sequence[Signature]
    ) -> dict[str, str]:
        """The server's own files: name below the root → contents."""


class Plain(Layout):
    """The graph and its names in one folder."""

    name = "plain"

    def graph_folder(self, name: str) -> str:
        return "."

    def labels_file(self, name: str) -> str:
        return LABELS

    def files(
        self, name: str, form: Format, inputs: Sequence[Signature], outputs: Sequence[Signature]
    ) -> dict[str, str]:
        return {}


class Triton(Layout):
    """A model repository of NVIDIA Triton Inference Server, whose dynamic batching is on."""

    name = "triton"
    server = "Triton Inference Server"

    def files(
        self, name: str, form: Format, inputs: Sequence[Signature], outputs: Sequence[Signature]
    ) -> dict[str, str]:
        lines = [f'name: "{name}"', f'backend: "{form.backend}"', f"max_batch_size: {MAX_BATCH}"]
        lines += [_tensor("input", one) for one in inputs] + [_tensor("output", one) for one in outputs]
        return {f"{name}/config.pbtxt": "\n".join([*lines, "dynamic_batching { }"]) + "\n"}


class ModelServer(Layout):
    """A model repository of OpenVINO Model Server with its configuration, in which float32 is asked for."""

    name = "ovms"
    server = "OpenVINO Model Server"

    def files(
        self, name: str, form: Format, inputs: Sequence[Signature], outputs: Sequence[Signature]
    ) -> dict[str, str]:
        config = {"name": name, "base_path": name, "plugin_config": {"INFERENCE_PRECISION_HINT": "f32"}}
        return {"config.json": json.dumps({"model_config_list": [{"config": config}]}, indent=1) + "\n"}


LAYOUTS: dict[str, Layout] = {one.name: one for one in (Plain(), Triton(), ModelServer())}


def _tensor(kind: str, one: Signature) -> str:
    named = f' label_filename: "{LABELS}"' if one.name == "probabilities" else ""
    dims = ", ".join(map(str, one.shape))
    return f'{kind} {{ name: "{one.name}" data_type: {TYPES[one.type]} dims: [ {dims} ]{named} }}'


def model_name(given: str) -> str:
    """A name that both servers take, made of another."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", given).strip("_-") or "classifier"
