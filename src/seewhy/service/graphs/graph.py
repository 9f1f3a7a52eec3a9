"""One graph of a classifier, uint8 pictures in, decision and Grad-CAM out, written as ONNX and run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
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

from ...attributions.grad_cam import GradCAM
from ...classifiers.base import Classifier
from ...encoders.base import EncoderOutput
from ...encoders.convert import quiet, write_onnx
from ...errors import MissingExtraError, ModelError
from ...heads.head import Target
from ...storage.folders import write_inside

INPUTS = ("picture", "class_index")
OUTPUTS = ("logits", "probabilities", "heat", "explained")
MOST = 2**16
"""Pictures in a batch that a graph is made for."""


class Graph(nn.Module):
    """``picture`` and ``class_index`` → ``logits``, ``probabilities``, ``heat`` and ``explained``.

    Its map is Grad-CAM of the last map: a gradient through the head alone, traced into plain operations.
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
        # As long as no other axis, so that the trace cannot take one for the other.
        self.n_examples = next(n for n in range(2, 99) if n not in features.shape)
        self.tail = _traced(classifier, features.repeat(self.n_examples, *(1,) * (features.ndim - 1)))

    def forward(
        self, picture: UInt8[Tensor, "b h w 3"], class_index: Int[Tensor, "b 1"]
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"], Float[Tensor, "b gh gw"], Int[Tensor, "b 1"]]:
        pixels = ((picture.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        return self.tail(self.trunk(pixels), class_index)

    def program(self, size: tuple[int, int]) -> ExportedProgram:
        """The graph for pictures of this height and width, and batches of any length."""
        example = torch.zeros(self.n_examples, *size, 3, dtype=torch.uint8)
        index = torch.full((self.n_examples, 1), -1)
        batch = Dim("batch", min=1, max=MOST)
        try:
            with quiet(), torch.no_grad():
                return torch.export.export(self.eval(), (example, index), dynamic_shapes=({0: batch}, {0: batch}))
        except Exception as error:
            raise ModelError(
                f"The trunk cannot be exported for batches of any length ({said(error)}). A trunk of one piece, "
                "without branches that read the pictures, was expected. Take lite0, or serve it with SeeWhy."
            ) from error


def on_cpu(trunk: nn.Module) -> nn.Module:
    away = any(p.device.type != "cpu" for p in (*trunk.parameters(), *trunk.buffers()))
    return (copy.deepcopy(trunk).cpu() if away else trunk).eval()


def _traced(classifier: Classifier, features: Tensor) -> fx.GraphModule:
    """What ``predict`` and ``explain --where grad_cam`` do once the trunk has run."""
    index = torch.full((len(features), 1), -1)

    def tail(features: Tensor, class_index: Tensor) -> tuple[Tensor, ...]:
        pooled = classifier.encoder.head(features)
        logits = classifier.head(pooled)
        explained = torch.where(class_index < 0, logits.argmax(1, keepdim=True), class_index)
        heat = GradCAM().attribute(classifier, EncoderOutput(features, pooled), Target(explained[:, 0]))
        return logits.detach(), logits.detach().softmax(1), heat.detach(), explained

    with sdpa_kernel(SDPBackend.MATH), quiet():  # the fast kernels' backward is no plain operation
        tail(features, index)  # what is made once on first use is made of numbers, and not of the trace
        try:
            plain = _plain()
            return make_fx(tail, plain, "symbolic", _allow_non_fake_inputs=True)(features, index)
        except Exception as error:
            raise ModelError(
                f"A {classifier.recipe!r} classifier on {classifier.encoder.name!r} cannot be one graph: what stands "
                f"behind its trunk asks for numbers on the way ({said(error)}). A head of fixed operations, as of "
                "'linear', 'zero_shot' or 'neighbours', was expected. Export one of those, or serve this with SeeWhy."
            ) from error


def _plain() -> dict[Any, Any]:
    """How operations are written as simpler ones, which the formats know."""
    aten = torch.ops.aten
    # The gradient of a norm reads the mean and the length that it divided by; runtimes' own norms do not give them.
    norms = get_decompositions([aten.native_layer_norm, aten.native_group_norm])
    return {**torch.export.default_decompositions(), **norms, aten.stack.default: _stack}


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """torch joins and reshapes instead, to ``(3, batch, …)`` for queries, keys and values; OpenVINO fails there."""
    return torch.cat([one.unsqueeze(dim) for one in tensors], dim)


def said(error: Exception) -> str:
    """What an exporter says, in one line that is not too long."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": .")


Run = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""``picture`` and ``class_index`` → outputs by name."""

TWO_GIGABYTES = 2**31 - 2**24
FILE = "model.onnx"
RUNTIME = "onnxruntime"
"""Which runs the graph, the extra and the backend of Triton too."""
NEEDS = ("onnx", "onnxscript", "onnxruntime")


def check_installed() -> None:
    if any(find_spec(module) is None for module in NEEDS):
        raise MissingExtraError(RUNTIME, "Export to ONNX")


def write_graph(program: ExportedProgram, folder: Path, facts: Mapping[str, str]) -> int:
    """Write the graph into a folder of SeeWhy's own, facts by name in its file; its opset.

    Weights of 2 GB and more lie beside it, as one file cannot hold them.
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
    """What runs it, in float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])
    return lambda picture, index: dict(
        zip(OUTPUTS, session.run(list(OUTPUTS), dict(zip(INPUTS, (picture, index), strict=True))), strict=True)
    )
