"""Occlusion (Zeiler & Fergus 2014, arXiv 1311.2901)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..bounds import Count, Finite
from . import attributions
from .base import Attribution, EncoderOutput, Explainable, Maps, Of, TargetFunction, engine_logits, scores_of_changes


@attributions.register
@dataclass(frozen=True)
class Occlusion(Attribution):
    """Decrease of the class's score when windows of the picture are covered.

        S(x) = mean over the windows that cover x of y(I) − y(I with the window filled)

    ``S(x)`` is the map at pixel ``x``, ``y`` the target's logit and ``I`` the picture. The paper (section 4.2) uses the
    probability, which hardly changes if the model is confident. Windows are placed as in ``captum.attr.Occlusion``.

    Args:
        window: side of the window in pixels; default: a seventh of the picture's shorter side (32 of 224).
        stride: distance between windows in pixels; default: half a window.
        fill: value of covered pixels after normalisation; 0 is the mean colour.
        of: score whose decrease is measured, ``"logit"`` or ``"probability"``.
        batch_size: number of covered pictures per forward pass.
    """

    name = "occlusion"
    paper = "Zeiler & Fergus 2014, arXiv:1311.2901"
    needs = "pixels; any model"
    cost = "169 (one per window)"
    needs_pixels = True
    engine_alone = True

    window: Count | None = None
    stride: Count | None = None
    fill: Finite = 0.0
    of: Of = "logit"
    batch_size: Count = 64

    def attribute(self, model: Explainable, look: EncoderOutput, target: TargetFunction) -> Maps:
        pixels, n = look.pixels_for(self.name), len(look)
        windows = self.windows((pixels.shape[2], pixels.shape[3]))
        with torch.no_grad():
            before = scores_of_changes(target, model.head(look.pooled)[None], self.of)[0]
        falls = torch.zeros(n, *pixels.shape[2:])
        for some in windows.split(max(1, self.batch_size // max(n, 1))):
            covered = torch.where(some[:, None, None], self.fill, pixels).flatten(0, 1)
            logits = engine_logits(model, covered, self.batch_size).unflatten(0, (len(some), n))
            fall = before - scores_of_changes(target, logits, self.of)
            falls += torch.einsum("mb,mhw->bhw", fall, some.float())
        return falls / windows.sum(0).clamp(min=1)

    def windows(self, size: tuple[int, int]) -> Tensor:
        """Return one boolean mask per window."""
        window = self.window or max(1, min(size) // 7)
        stride = self.stride or max(1, window // 2)
        edges = []
        for side in size:
            n = 1 + -(-max(0, side - window) // stride)
            start = torch.arange(n)[:, None] * stride
            place = torch.arange(side)
            edges.append((place >= start) & (place < start + window))
        rows, columns = edges
        return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)
