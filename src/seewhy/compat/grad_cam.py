"""pytorch-grad-cam's calls, from our mathematics.

The graph is cut at the layer, and the model's gradients, mode and hooks are as they were.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..attributions.ablation_cam import drops
from ..attributions.cam import CAM
from ..attributions.eigen_grad_cam import EigenGradCAM as _EigenGradCAM
from ..attributions.first_component import first_component
from ..attributions.grad_cam import GradCAM as _GradCAM
from ..attributions.grad_cam_elementwise import GradCAMElementwise as _GradCAMElementwise
from ..attributions.grad_cam_plus_plus import GradCAMPlusPlus as _GradCAMPlusPlus
from ..attributions.hires_cam import HiResCAM as _HiResCAM
from ..attributions.inner_layer import Reached, Taps, layout_of, refuse_windows, run_through
from ..attributions.layer_cam import LayerCAM as _LayerCAM
from ..attributions.score_cam import channel_scores
from ..attributions.xgrad_cam import XGradCAM as _XGradCAM
from ..classifiers.head import Goal, Target
from ..encoders.base import Layout
from ..encoders.cut import cut_by_graph, cut_by_hooks
from ..errors import InputError

Targets = Sequence[Callable[[Tensor], Tensor]]
"""One a picture: a picture's own output ``(k,)`` → a number, such as pytorch-grad-cam's ``ClassifierOutputTarget``."""


class ClassifierOutputTarget:
    """The logit of one class; the peer's own class does as well."""

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, output: Tensor) -> Tensor:
        return output[..., self.category]


class PeerCAM(ABC):
    """A class activation map with pytorch-grad-cam's arguments.

    Args:
        model: any network whose output is ``(b, k)``.
        target_layers: its own layers; the maps of several are averaged.
        reshape_transform: a layer's output → ``(b, c, h, w)``; left out, the arrangement is found, tokens included.

    Raises:
        InputError: a layer is not the model's.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        names = {id(part): name for name, part in model.named_modules() if name}
        if isinstance(target_layers, nn.Module) or not target_layers:
            raise InputError("target_layers is no list of layers. A list was expected. Write target_layers=[layer].")
        unknown = [type(layer).__name__ for layer in target_layers if id(layer) not in names]
        if unknown:
            raise InputError(
                f"The target layer {unknown[0]} is not inside {type(model).__name__}. One of its own was expected. "
                "Take it from the model that is given, not from a copy."
            )
        self.model = model
        self.target_layers = list(target_layers)
        self.reshape_transform = reshape_transform
        self._names = [names[id(layer)] for layer in target_layers]

    def __call__(
        self,
        input_tensor: Float[Tensor, "b 3 h w"],
        targets: Targets | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> np.ndarray:
        """Maps ``(b, h, w)``, from 0 to 1 in each picture that has one.

        Args:
            input_tensor: normalised pixels.
            targets: one a picture; ``None`` explains the class with the highest output.
            aug_smooth: not offered.
            eigen_smooth: not offered.

        Raises:
            InputError: there are not as many targets as pictures, or a smoothing is asked for.
        """
        if aug_smooth or eigen_smooth:
            raise InputError("aug_smooth and eigen_smooth are not offered. Leave them out, or use pytorch-grad-cam.")
        check_targets(targets, len(input_tensor))
        device = next((p.device for p in self.model.parameters()), input_tensor.device)
        modes = [(part, part.training) for part in self.model.modules()]
        self.model.eval()
        try:
            pixels = input_tensor.detach().to(device).contiguous(memory_format=torch.channels_last)
            maps = self.maps(pixels, targets)
        finally:
            for part, mode in modes:
                part.training = mode
        size = (input_tensor.shape[2], input_tensor.shape[3])
        layers = [interpolate(unit(m.relu())[:, None], size=size, mode="bilinear")[:, 0] for m in maps]
        return unit(torch.stack(layers).relu().mean(0)).cpu().numpy()

    @abstractmethod
    def maps(self, pixels: Float[Tensor, "b 3 h w"], targets: Targets | None) -> list[Tensor]:
        """Signed maps, one a layer."""

    def arranged(self, out: Tensor, pixels: Tensor, name: str) -> Float[Tensor, "b c h w"]:
        """A layer's output, channels second."""
        if self.reshape_transform is not None:
            return self.reshape_transform(out)
        refuse_windows(out, len(pixels), name)
        return self.layout(out, pixels, name).to_grid(out)

    def layout(self, out: Tensor, pixels: Tensor, name: str) -> Layout:
        return layout_of(tuple(out.shape), (pixels.shape[2], pixels.shape[3]), Layout(), name)

    def activations(self, pixels: Tensor, stop: bool) -> tuple[list[Tensor], Tensor | None]:
        """Outputs of the layers as leaves, and the network's output computed from them."""
        taps = Taps(stop and len(self._names) == 1)
        output = None
        try:
            with torch.no_grad():
                places = dict(zip(self._names, self.target_layers, strict=True))
                output = run_through(self.model, places, pixels, taps)
        except Reached:
            pass
        return [taps.only(name) for name in self._names], output

    def __enter__(self) -> PeerCAM:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027
        """Nothing was left in the model that would have to be taken out."""


def check_targets(targets: Targets | None, n_pictures: int) -> None:
    """The peer stops at the shorter list, and the pictures left over get an empty map without a word."""
    if targets is None:
        return
    if callable(targets) or len(targets) != n_pictures:
        n = 1 if callable(targets) else len(targets)
        raise InputError(f"{n} targets were given for {n_pictures} pictures. Give a list with one a picture.")
    wrong = next((t for t in targets if not callable(t)), None)
    if wrong is not None:
        raise InputError(
            f"The target {wrong!r} is a {type(wrong).__name__}. A function of a picture's output was expected. "
            "Write ClassifierOutputTarget(class index)."
        )


def goal_of(targets: Targets | None, output: Float[Tensor, "b k"]) -> Goal:
    """All pictures' targets as one function of the logits; without targets, of the highest."""
    if targets is None:
        return Target(output.detach().argmax(1))
    chosen = list(targets)
    return lambda logits: torch.stack([t(row).reshape(()) for t, row in zip(chosen, logits, strict=True)])


def unit(maps: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """The peer's display: the lowest value taken away, divided by the highest; a map without contrast is 0."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (1e-7 + maps.amax((1, 2), keepdim=True))


class _GradientCAM(PeerCAM):
    rule: ClassVar[CAM]

    def maps(self, pixels: Float[Tensor, "b 3 h w"], targets: Targets | None) -> list[Tensor]:
        leaves, output = self.activations(pixels, stop=False)
        assert output is not None
        with torch.enable_grad():
            score = goal_of(targets, output)(output).sum()
            gradients = torch.autograd.grad(score, leaves, allow_unused=True)
        found = []
        for name, leaf, gradient in zip(self._names, leaves, gradients, strict=True):
            if gradient is None:
                raise InputError(f"The output does not depend on the layer {name!r}. Choose another target layer.")
            found.append(
                self.rule.weigh(
                    self.arranged(leaf.detach(), pixels, name).float(), self.arranged(gradient, pixels, name).float()
                )
            )
        return found


class GradCAM(_GradientCAM):
    rule = _GradCAM()


class GradCAMPlusPlus(_GradientCAM):
    """With the peer's ``ε`` of 1e-6; see :class:`seewhy.attributions.grad_cam_plus_plus.GradCAMPlusPlus`."""

    rule = _GradCAMPlusPlus(epsilon=1e-6)


class HiResCAM(_GradientCAM):
    rule = _HiResCAM()


class LayerCAM(_GradientCAM):
    rule = _LayerCAM()


class XGradCAM(_GradientCAM):
    rule = _XGradCAM()


class GradCAMElementWise(_GradientCAM):
    rule = _GradCAMElementwise()


class EigenGradCAM(_GradientCAM):
    """The sign is ours: positive speaks for the target. The peer's is that of its decomposition."""

    rule = _EigenGradCAM()


class EigenCAM(PeerCAM):
    """The sign is ours: that of the mean size of the activations. The peer's is that of its decomposition."""

    def maps(self, pixels: Float[Tensor, "b 3 h w"], targets: Targets | None) -> list[Tensor]:
        leaves, _ = self.activations(pixels, stop=True)
        grids = [self.arranged(leaf, pixels, name).detach() for leaf, name in zip(leaves, self._names, strict=True)]
        return [first_component(grid, grid.abs().mean(1)) for grid in grids]


class ScoreCAM(PeerCAM):
    """Every channel is a mask, as with the peer.

    Attributes:
        batch_size: masked pictures a pass sees.
    """

    batch_size = 16

    @torch.no_grad()
    def maps(self, pixels: Float[Tensor, "b 3 h w"], targets: Targets | None) -> list[Tensor]:
        leaves, output = self.activations(pixels, stop=False)
        assert output is not None
        goal = goal_of(targets, output)
        found = []
        for name, leaf in zip(self._names, leaves, strict=True):
            grid = self.arranged(leaf.detach(), pixels, name)
            weights = channel_scores(self.model, pixels, grid, goal, 0, self.batch_size).softmax(1)
            found.append(torch.einsum("bc,bchw->bhw", weights, grid))
        return found


class AblationCAM(PeerCAM):
    """A channel is set to 0, as in the paper, and only what lies behind the layer runs again.

    The peer does the same where the layer's lowest value is 0; elsewhere it puts the channel 1e7 below the lowest
    value, which is another method. Its division by the score, which turns the map over where the score is negative, is
    left out.

    Args:
        batch_size: copies the tail sees at once.
        ratio_channels_to_ablate: only 1.0 is offered.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
        ratio_channels_to_ablate: float = 1.0,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        if ratio_channels_to_ablate != 1.0 or reshape_transform is not None or len(target_layers) != 1:
            raise InputError(
                "AblationCAM was given a ratio, a reshape_transform or several layers. All channels of one layer, "
                "whose arrangement is found, were expected. Leave them out."
            )
        self.batch_size = batch_size
        self._cut: dict[tuple[int, int], tuple[nn.Module, nn.Module]] = {}

    @torch.no_grad()
    def maps(self, pixels: Float[Tensor, "b 3 h w"], targets: Targets | None) -> list[Tensor]:
        name = self._names[0]
        size = (pixels.shape[2], pixels.shape[3])
        if size not in self._cut:  # following the graph takes longer than running it
            self._cut[size] = cut_by_graph(self.model, name, None) or cut_by_hooks(self.model, name, None, size)
        front, tail = self._cut[size]
        features = front(pixels)
        layout = self.layout(features, pixels, name)
        goal = goal_of(targets, tail(features))
        weights = drops(tail, features, layout, goal, self.batch_size)
        return [torch.einsum("bc,bchw->bhw", weights, layout.to_grid(features))]
