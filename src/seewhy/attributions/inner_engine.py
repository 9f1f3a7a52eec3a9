"""The part of a trunk before an inner layer in the encoder's own engine: it needs no gradient."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..encoders.base import Encoder
from ..encoders.engines import PRECISIONS, Engine, make_engine
from ..encoders.split import cut_by_graph
from ..errors import EngineError

_log = logging.getLogger("seewhy")
_cuts: WeakKeyDictionary[Encoder, dict[str, InnerCut | None]] = WeakKeyDictionary()


@dataclass(frozen=True)
class InnerCut:
    """A trunk in two at a layer.

    Attributes:
        front: pixels → what the layer gives, in an engine, without gradients.
        tail: that → the trunk's features, in torch.
    """

    front: Engine
    tail: nn.Module


def inner_cut(encoder: Encoder, layer: str) -> InnerCut | None:
    """The cut, made once for an encoder and a layer, its front kept on disk as every converted trunk is.

    ``None`` where the trunk runs in torch anyway, cannot be cut by its graph (a layer inside a residual branch, a block
    that runs twice), gives no row a picture there, or its front does not convert; then hooks cut it in torch.
    """
    if encoder.engine.name == "torch":
        return None
    known = _cuts.setdefault(encoder, {})
    if layer not in known:
        known[layer] = _made(encoder, layer)
    return known[layer]


def _made(encoder: Encoder, layer: str) -> InnerCut | None:
    parts = dict(encoder.trunk.named_modules())
    name = next((n for n in (layer, f"module.{layer}") if n in parts), None)
    halves = None if name is None else cut_by_graph(encoder.trunk, name, None)
    if halves is None:
        return None
    front, tail = halves
    if not _is_row_by_row(encoder, front):
        return None
    short = next(short for short, long in PRECISIONS.items() if long == encoder.engine.precision)
    asked, key = f"{encoder.engine.name}:{short}", f"{encoder.fingerprint}|until {layer}"
    try:
        return InnerCut(make_engine(asked, lambda: front, encoder.transform.input_size, key), tail.eval())
    except EngineError as error:
        _log.info("%s The layer %s is read in torch.", error, layer)
        return None


@torch.no_grad()
def _is_row_by_row(encoder: Encoder, front: nn.Module) -> bool:
    """Whether a layer gives one row a picture: inside windows it gives many, of which an engine keeps the first."""
    out = front(torch.zeros(1, 3, *encoder.transform.input_size))
    return isinstance(out, Tensor) and len(out) == 1
