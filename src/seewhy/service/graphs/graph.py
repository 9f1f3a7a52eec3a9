"""One graph of a classifier: uint8 pictures in, decision and Grad-CAM out, the gradient written out as operations."""

from __future__ import annotations

import copy
from collections.abc import Sequence
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
from ...encoders.convert import quiet
from ...errors import ModelError
from ...heads.head import Target

INPUTS = ("picture", "class_index")
OUTPUTS = ("logits", "probabilities", "heat", "explained")
MOST = 2**16
"""Pictures in a batch that a graph is made for."""


class Graph(nn.Module):
    """``picture`` and ``class_index`` → ``logits``, ``probabilities``, ``heat`` and ``explained``.

    Normalising, trunk and head are the classifier's own. The map is :class:`seewhy.attributions.grad_cam.GradCAM`
    itself, of the last map: it needs a gradient through the head alone, and that is traced into plain operations, so a
    runtime without gradients draws it.

    Args:
        classifier: what decides.
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
        self.n_examples = _unlike(features.shape)
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


def decide_and_explain(
    classifier: Classifier, features: Tensor, class_index: Int[Tensor, "b 1"]
) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"], Float[Tensor, "b gh gw"], Int[Tensor, "b 1"]]:
    """What ``predict`` and ``explain --where grad_cam`` do once the trunk has run."""
    pooled = classifier.encoder.head(features)
    logits = classifier.head(pooled)
    explained = torch.where(class_index < 0, logits.argmax(1, keepdim=True), class_index)
    heat = GradCAM().attribute(classifier, EncoderOutput(features, pooled), Target(explained[:, 0]))
    return logits.detach(), logits.detach().softmax(1), heat.detach(), explained


def on_cpu(trunk: nn.Module) -> nn.Module:
    """The trunk, or a copy of it where it runs on a GPU."""
    away = any(p.device.type != "cpu" for p in (*trunk.parameters(), *trunk.buffers()))
    return (copy.deepcopy(trunk).cpu() if away else trunk).eval()


def _traced(classifier: Classifier, features: Tensor) -> fx.GraphModule:
    index = torch.full((len(features), 1), -1)

    def tail(features: Tensor, class_index: Tensor) -> tuple[Tensor, ...]:
        return decide_and_explain(classifier, features, class_index)

    with sdpa_kernel(SDPBackend.MATH), quiet():  # the fast kernels' backward is no plain operation
        tail(features, index)  # what is made once on first use is made of numbers, and not of the trace
        try:
            trace = make_fx(
                tail,
                decomposition_table=_plain(),
                tracing_mode="symbolic",
                _allow_non_fake_inputs=True,
            )
            return trace(features, index)
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


def _unlike(shape: Sequence[int]) -> int:
    """A batch that is as long as no other axis, so that the trace cannot take one for the other."""
    return next(n for n in range(2, 99) if n not in shape)


def said(error: Exception) -> str:
    """What an exporter says, in one line that is not too long."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": .")
