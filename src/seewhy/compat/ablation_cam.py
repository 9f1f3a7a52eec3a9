"""pytorch-grad-cam's Ablation-CAM, from our mathematics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..attributions.ablation_cam import drops, silence
from ..attributions.cam import first_component
from ..attributions.score_cam import stretched
from ..encoders.cut import cut_by_graph
from ..errors import InputError
from .base import PeerCAM, Reshape, layout, summed
from .targets import Choose, scores

Blank = Callable[[Any, Tensor], None]
"""Sets in each row of copies of a layer's output one channel to 0; which one, the second argument says."""


class AblationCAM(PeerCAM):
    """A channel is set to 0, as in the paper, and where the network can be cut there, only what lies behind runs again.

    The peer does the same where the layer's lowest value is 0; elsewhere it puts the channel 1e7 below the lowest
    value, which is another method. Its division by the score, which turns the map over where the score is negative, is
    left out.

    Args:
        ablation_layer: not read; which part of the output is a channel is found, in tokens and in pyramids too.
        batch_size: copies a pass sees.
        ratio_channels_to_ablate: a part of the channels, half of it those that lie most where the layer varies, half
            those that lie least; the others weigh nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Reshape | None = None,
        ablation_layer: object = None,
        batch_size: int = 32,
        ratio_channels_to_ablate: float = 1.0,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        if not 0 < ratio_channels_to_ablate <= 1:
            raise InputError(
                f"ratio_channels_to_ablate is {ratio_channels_to_ablate}. A part above 0, at most 1, was expected."
            )
        self.batch_size = batch_size
        self.ratio_channels_to_ablate = ratio_channels_to_ablate
        self._tails: dict[str, nn.Module | None] = {}

    @torch.no_grad()
    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        raw, output = self.heard(pixels)
        targets = choose(output)
        whole = scores(targets, output)
        found = []
        for out, name, layer in zip(raw, self._names, self.target_layers, strict=True):
            grid = self.arranged(out, pixels, name).float()
            blank = self.blank(out, grid, pixels, name)
            chosen = self.chosen(grid)

            def without(
                channels: Int[Tensor, "m b"], out: Any = out, blank: Blank = blank, name: str = name, layer: Any = layer
            ) -> Float[Tensor, "m b"]:
                copies = tree_map_only(Tensor, lambda t: t.repeat(len(channels), *[1] * (t.ndim - 1)), out)
                blank(copies, channels.flatten())
                output = self.rerun(name, layer, copies, pixels, len(channels))
                return scores(targets, output).unflatten(0, channels.shape)

            lost = drops(without, whole, chosen, self.batch_size)
            weights = torch.zeros_like(grid[:, :, 0, 0]).scatter(1, chosen, lost.float())
            found.append(summed(weights[:, :, None, None] * grid, eigen_smooth))
        return found

    def blank(self, out: Any, grid: Float[Tensor, "b c h w"], pixels: Tensor, name: str) -> Blank:
        """How a channel of the grid is set to 0 in the layer's own output."""
        if isinstance(out, dict) and all(isinstance(level, Tensor) and level.ndim == 4 for level in out.values()):
            widths = [level.shape[1] for level in out.values()]
            if sum(widths) == grid.shape[1]:
                return lambda copies, channels: silence_levels(list(copies.values()), channels)
        to_grid = self.reshape_transform or layout(out, pixels, name).to_grid
        if not isinstance(out, Tensor) or to_grid(out).untyped_storage().data_ptr() != out.untyped_storage().data_ptr():
            raise InputError(
                f"The reshape_transform of the layer {name!r} makes new values, and which of the layer's are a channel "
                "is not known. One that only moves values was expected, or one that joins the maps of a dict. Leave it "
                "out, or name another layer."
            )
        return lambda copies, channels: silence(to_grid(copies), channels)

    def chosen(self, grid: Float[Tensor, "b c h w"]) -> Int[Tensor, "b n"]:
        """The channels that are left out in turn."""
        n_channels = grid.shape[1]
        if self.ratio_channels_to_ablate == 1:
            return torch.arange(n_channels, device=grid.device).expand(len(grid), -1)
        varied = stretched(first_component(grid, grid.abs().mean(1)).abs()[:, None]) > 0.01
        shape = stretched(grid.abs())
        order = ((varied * shape).sum((2, 3)) / shape.sum((2, 3))).nan_to_num(0).argsort(1)
        n = max(1, int(n_channels * self.ratio_channels_to_ablate))
        return torch.cat([order.flip(1)[:, :n], order[:, :n]], 1)

    def rerun(self, name: str, layer: nn.Module, features: Any, pixels: Tensor, n_copies: int) -> Any:
        """The network's output from a layer's changed output on."""
        if name not in self._tails:  # following the graph takes longer than running it
            halves = cut_by_graph(self.model, name, None) if isinstance(features, Tensor) else None
            self._tails[name] = None if halves is None else halves[1]
        tail = self._tails[name]
        if tail is not None:
            return tail(features)
        with layer.register_forward_hook(
            lambda _m, _a, out: (features, *out[1:]) if isinstance(out, tuple) else features
        ):
            return self.model(pixels.repeat(n_copies, 1, 1, 1))


def silence_levels(levels: list[Tensor], channels: Int[Tensor, " n"]) -> None:
    """A channel of several maps counts on from the last of the one before."""
    first = 0
    for level in levels:
        rows = ((channels >= first) & (channels < first + level.shape[1])).nonzero()[:, 0]
        level[rows, channels[rows] - first] = 0
        first += level.shape[1]
