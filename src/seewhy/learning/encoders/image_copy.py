"""A trainable copy of the image network of any encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...attributions.layers import find_layers, find_place, run_through
from ...encoders.base import Encoder, GlobalAverage, Layout
from ...encoders.split import example_pixels, freeze
from ...errors import ModelError
from .delta import EncoderCopy, digest_of, halves_of
from .projection import restored
from .pyramid import Pyramid, stages_of

Learns = Literal["none", "last_stage", "late_stages", "all"]
"""Encoder weights to train: none, the last stage, all stages after the feature map with a quarter of the input's side,
or all."""
N_STAGES = {"last_stage": 2, "late_stages": 4}
"""Number of the last feature maps of different sizes; weights before the first of these are not trained."""
ALL_BLOCKS = 1000


class ImageCopy(EncoderCopy):
    """A trainable copy of an encoder's trunk and pooling, optionally with new layers ``behind`` them.

    The input are pixels from :class:`~seewhy.training.augmentation.TrainingPictures`, which preprocesses pictures as
    the encoder does. :meth:`learn` chooses the weights to train, :meth:`delta` returns those that changed, and
    :meth:`restored` loads them onto the original encoder, whose fingerprint the loader of the file has checked.
    """

    added = "behind"
    form: ClassVar[str] = "pictures"

    def __init__(
        self, trunk: nn.Module, pool: nn.Module, behind: nn.Module | None = None, head: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.trunk, self.pool, self.behind = trunk, pool, behind
        self.head = dict(head or {})

    @classmethod
    def before(cls, on: Encoder, pyramid: Mapping[str, Any] | None = None) -> Self:
        """Return a frozen copy."""
        trunk, pool = halves_of(on)
        if pyramid is None:
            return cls(trunk, pool)
        return cls(Pyramid.restored(trunk, on.layout, pyramid), GlobalAverage())

    def fresh(self, on: Encoder) -> Self:
        return self.before(on, self.pyramid)

    @property
    def pyramid(self) -> Mapping[str, Any] | None:
        return self.trunk.facts() if isinstance(self.trunk, Pyramid) else None

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return pooled vectors, without the layers ``behind``."""
        return self.pool(self.trunk(pixels))

    def learn(self, on: Encoder, which: Learns) -> Self:
        """Enable gradients of the weights to train, except weights that do not change the pooled vector."""
        self.requires_grad_(which != "none")
        if which == "none":
            return self
        own = list(self.parameters())
        gradients = self._gradients(on, own, _start_of(on, N_STAGES[which]) if which in N_STAGES else "")
        for p, gradient in zip(own, gradients, strict=True):
            p.requires_grad_(gradient is not None)  # a trunk may carry a layer that it does not use
        return self

    @torch.enable_grad()
    def _gradients(self, on: Encoder, own: Sequence[Tensor], layer: str) -> tuple[Tensor | None, ...]:
        """Return the gradient of the pooled vector for each weight after a layer."""
        places = {layer: find_place(self.trunk, layer, on.name)} if layer else {}
        cut: Any = SimpleNamespace(take=lambda _name, out: out.detach())
        pooled = self.pool(run_through(self.trunk, places, example_pixels(on.transform.input_size), cut))
        if not pooled.requires_grad and not layer:
            raise ModelError(
                f"The encoder {on.name!r} has no trainable weights. Choose another encoder or leave `train` out."
            )
        if not pooled.requires_grad:  # no trainable weight after the layer
            return self._gradients(on, own, "")
        return torch.autograd.grad(pooled.sum(), own, allow_unused=True)

    def inside(self, on: Encoder, **changes: Any) -> Encoder:
        """Return the encoder with this network and its own text encoder, without classes."""
        trunk = self.trunk
        head = self.pool if self.behind is None else nn.Sequential(self.pool, self.behind)
        layout = on.layout if self.pyramid is None else Layout()
        own = {"trunk": lambda: trunk, "module": lambda: nn.Sequential(trunk, head), "head": head, "layout": layout}
        return on.but(**own, classifier=None, classes=(), **changes)

    def grown(self, on: Encoder, name: str, keep: float) -> Encoder:
        tensors = self.delta(on)
        digest = digest_of(tensors, on, keep, "|pictures")
        return self.between(on, tensors, keep).inside(on, name=name, fingerprint=digest, base=on, text=None)

    def with_text(self, on: Encoder) -> Encoder:
        """Return the encoder with this network and its own text encoder, if it has one."""
        return self.inside(on, fingerprint=digest_of(self.delta(on), on, 1.0, "|pictures"), base=on)

    def facts(self) -> dict[str, Any]:
        own = {} if self.behind is None else {"head": self.head}
        return {"form": self.form} | own | ({} if self.pyramid is None else {"pyramid": self.pyramid})

    @classmethod
    def restored(cls, on: Encoder, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Load the output of :meth:`facts` and :meth:`delta`."""
        image = cls.before(on, facts.get("pyramid"))
        if "head" in facts:
            image.head = dict(facts["head"])
            image.behind = freeze(restored(image.head))
        return image.load(tensors)


def _start_of(on: Encoder, n_stages: int) -> str:
    """Return the name of the layer after which weights are trained."""
    try:
        return stages_of(on.trunk, on.layout, on.transform.input_size, n_stages)[0].layer
    except ModelError:  # all maps have the same size
        blocks = find_layers(on, ALL_BLOCKS)[:-1]  # without the trunk's last block
        n = max(1, (len(blocks) + 1) * (n_stages - 1) // 4)
        return blocks[-n] if n <= len(blocks) else ""
