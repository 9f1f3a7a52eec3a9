"""The methods of pytorch-grad-cam."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from ..attributions import attributions
from ..attributions.ablation_cam import drops, silence
from ..attributions.cam import WeightedCAM, first_component, stretched
from ..attributions.finer_cam import likest
from ..attributions.full_grad import enlarged, full_gradient
from ..attributions.grad_cam_plus_plus import GradCAMPlusPlus as GradCAMPlusPlusRule
from ..attributions.kpca_cam import KPCACAM, kernel_component
from ..attributions.score_cam import channel_scores
from ..encoders.split import cut_by_graph
from ..errors import InputError
from .base import Choose, FinerWeightedTarget, PeerCAM, Reshape, Targets, highest, layout, scores, summed


class _GradientCAM(PeerCAM):
    """A method that uses the activations and gradients of each layer."""

    rule: ClassVar[Any]
    less_bends: ClassVar[bool] = False

    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        with sdpa_kernel(SDPBackend.MATH) if self.less_bends else nullcontext():  # others have no second derivative
            slopes = self.slopes(pixels, choose, self.less_bends)
            return [self.map_of(activations, slope, eigen_smooth) for activations, slope in slopes]

    def map_of(self, activations: Tensor, slope: Tensor, eigen_smooth: bool) -> Float[Tensor, "b h w"]:
        if eigen_smooth and isinstance(self.rule, WeightedCAM):
            return summed(self.rule.weights(activations, slope) * activations, True)
        return self.rule.weigh(activations, slope)


class GradCAM(_GradientCAM):
    rule = attributions["grad_cam"]()


class GradCAMPlusPlus(_GradientCAM):
    """Grad-CAM++ with ``ε`` of 1e-6, as in pytorch-grad-cam."""

    rule = GradCAMPlusPlusRule(epsilon=1e-6)


class HiResCAM(_GradientCAM):
    rule = attributions["hires_cam"]()


class LayerCAM(_GradientCAM):
    rule = attributions["layer_cam"]()


class XGradCAM(_GradientCAM):
    rule = attributions["xgrad_cam"]()


class GradCAMElementWise(_GradientCAM):
    rule = attributions["grad_cam_elementwise"]()


class EigenGradCAM(_GradientCAM):
    """First principal component of gradient times activation; its sign follows the evidence for the target."""

    rule = attributions["eigen_grad_cam"]()


class SegEigenCAM(_GradientCAM):
    """First principal component of ``|gradient| · activation`` (Chung & Ying 2025, Appl. Sci. 15).

    The sign is chosen so that the value with the largest magnitude is positive.
    """

    def map_of(self, activations: Tensor, slope: Tensor, eigen_smooth: bool) -> Float[Tensor, "b h w"]:
        products = slope.abs() * activations
        component = first_component(products, products.sum(1))
        turned = -component.amin((1, 2)) > component.amax((1, 2))
        return component * torch.where(turned, -1.0, 1.0)[:, None, None]


class ShapleyCAM(_GradientCAM):
    """Shapley-CAM; see :mod:`seewhy.attributions.shapley_cam`. The paper's target is ``ClassifierOutputReST``."""

    less_bends = True

    def map_of(self, activations: Tensor, slope: Tensor, eigen_smooth: bool) -> Float[Tensor, "b h w"]:
        return summed(slope.mean((2, 3), keepdim=True) * activations, eigen_smooth)


@dataclass(eq=False, repr=False)
class FullGrad(PeerCAM):
    """FullGrad; see :mod:`seewhy.attributions.full_grad`. Every channel is scaled separately, as in
    pytorch-grad-cam.
    """

    target_layers: Sequence[nn.Module] = ()

    def __post_init__(self) -> None:
        """Ignore ``target_layers``, since all layers are used."""

    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        def score(output: Any) -> Tensor:
            self.outputs = output.detach() if isinstance(output, Tensor) else output
            return scores(choose(output), output)

        size = (pixels.shape[2], pixels.shape[3])
        picture, *biases = (stretched(part.abs(), (2, 3)) for part in full_gradient(self.model, pixels, score))
        layers = torch.cat([picture, *(enlarged(part.sum(1, keepdim=True), size) for part in biases)], 1)
        if not eigen_smooth:
            return [layers.sum(1)]
        small = enlarged(stretched(layers, (2, 3)), (max(1, size[0] // 8), max(1, size[1] // 8)))
        component = summed(small, True)[:, None]
        return [enlarged(stretched(component, (2, 3)), size)[:, 0]]


@dataclass(eq=False, repr=False)
class FinerCAM(AbstractContextManager["FinerCAM"]):
    """Finer-CAM: a map of the difference between a class and similar classes, weighted by their probability."""

    model: nn.Module
    target_layers: Sequence[nn.Module]
    reshape_transform: Reshape | None = None
    base_method: type[PeerCAM] = GradCAM

    def __post_init__(self) -> None:
        self.base_cam = self.base_method(self.model, self.target_layers, self.reshape_transform)

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Targets | None = None,
        eigen_smooth: bool = False,
        alpha: float = 1,
        comparison_categories: Sequence[int] = (1, 2, 3),
        target_idx: int | None = None,
        aug_smooth: bool = False,
    ) -> np.ndarray:
        """Return maps ``(b, h, w)`` of ``targets``, of ``target_idx``, or of the highest class.

        Args:
            alpha: weight of the similar classes.
            comparison_categories: ranks of the similar classes, where 1 has the nearest output.
        """

        def choose(output: Any) -> Targets:
            mine = [target.category for target in highest(output)]  # type: ignore[attr-defined]
            classes = torch.tensor(mine) if target_idx is None else torch.full((len(output),), target_idx)
            classes = classes.to(output.device)
            order = torch.cat([classes[:, None], likest(output.detach(), classes, output.shape[1])], 1).tolist()
            ranks = [rank for rank in comparison_categories if rank < output.shape[1]]
            return [FinerWeightedTarget(row[0], [row[rank] for rank in ranks], alpha) for row in order]

        if targets is not None:
            return self.base_cam(input_tensor, targets, aug_smooth, eigen_smooth)
        return self.base_cam.explain(input_tensor, choose, aug_smooth, eigen_smooth)

    @property
    def outputs(self) -> Any:
        return self.base_cam.outputs

    def __exit__(self, *_: object) -> None:
        """Do nothing; no hooks remain in the model."""


class _ActivationCAM(PeerCAM):
    """A method that uses only the activations, so that the map does not depend on the class."""

    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        return [self.map_of(grid, eigen_smooth) for _, _, grid in self.heard(pixels)[0]]

    @abstractmethod
    def map_of(self, activations: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]: ...


class EigenCAM(_ActivationCAM):
    """First principal component of the activations; its sign follows the mean absolute activation."""

    def map_of(self, activations: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]:
        return first_component(activations, activations.abs().mean(1))


@dataclass(eq=False, repr=False)
class KPCA_CAM(_ActivationCAM):
    """KPCA-CAM; see :mod:`seewhy.attributions.kpca_cam`. The sign follows the mean absolute activation."""

    kernel: Literal["cosine", "linear", "poly", "rbf", "sigmoid"] = "sigmoid"
    gamma: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        KPCACAM(kernel=self.kernel, gamma=self.gamma)  # refuses what is no kernel

    def map_of(self, activations: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]:
        return kernel_component(activations, self.kernel, self.gamma)


@dataclass(eq=False, repr=False)
class FEM(_ActivationCAM):
    """Feature explanation method: channels weighted by their fraction of high activations (Fuad et al. 2020, IPTA)."""

    k: float = 2

    def map_of(self, activations: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]:
        deviation, mean = torch.std_mean(activations, (2, 3), unbiased=False, keepdim=True)
        weights = (activations > mean + self.k * deviation).float().mean((2, 3))
        return torch.einsum("bc,bchw->bhw", weights, activations)


class RandomCAM(_ActivationCAM):
    """A baseline with random channel weights from -1 to 1, from NumPy's global generator as in pytorch-grad-cam."""

    def map_of(self, activations: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]:
        drawn = np.random.uniform(-1, 1, activations.shape[:2])
        weights = torch.from_numpy(drawn).to(activations)[:, :, None, None]
        return summed(weights * activations, eigen_smooth)


class ScoreCAM(PeerCAM):
    """Score-CAM with every channel as a mask, as in pytorch-grad-cam."""

    batch_size = 16

    @torch.no_grad()
    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        grids, output = self.heard(pixels)
        targets, found = choose(output), []

        def network(masked: Tensor) -> Tensor:
            return scores(targets, self.model(masked))[:, None]

        for _, _, grid in grids:
            weights = channel_scores(network, pixels, grid, lambda values: values[:, 0], 0, self.batch_size).softmax(1)
            found.append(summed(weights[:, :, None, None] * grid, eigen_smooth))
        return found


Blank = Callable[[Any, Tensor], None]
"""A function that sets one channel to 0 in each row of a layer's output, given the indices of the channels."""


@dataclass(eq=False, repr=False)
class AblationCAM(PeerCAM):
    """Ablation-CAM, which sets each channel to 0 as in the paper.

    Where SeeWhy differs: pytorch-grad-cam sets a channel to the layer's lowest value minus 1e7 (to 0 if that value is
    0), and divides the decrease by the score. If the network can be split at the layer, only the layers after it run
    again.

    Args:
        ablation_layer: ignored.
        batch_size: number of copies per forward pass.
        ratio_channels_to_ablate: fraction of the channels to ablate, greater than 0 and at most 1; the other channels
            get the weight 0. Half of the ablated channels are those most similar to the layer's first principal
            component, and half those least similar.
    """

    ablation_layer: object = None
    batch_size: int = 32
    ratio_channels_to_ablate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio_channels_to_ablate <= 1:
            raise InputError(
                f"`ratio_channels_to_ablate` must be above 0 and at most 1, got {self.ratio_channels_to_ablate}."
            )
        self._tails: dict[str, nn.Module | None] = {}

    @torch.no_grad()
    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        grids, output = self.heard(pixels)
        targets, found = choose(output), []
        whole = scores(targets, output)
        for name, out, grid in grids:
            blank, chosen = self.blank(out, grid, pixels, name), self.chosen(grid)

            def without(
                channels: Int[Tensor, "m b"], out: Any = out, blank: Blank = blank, name: str = name
            ) -> Float[Tensor, "m b"]:
                copies = tree_map_only(Tensor, lambda t: t.repeat(len(channels), *[1] * (t.ndim - 1)), out)
                blank(copies, channels.flatten())
                return scores(targets, self.rerun(name, copies, pixels, len(channels))).unflatten(0, channels.shape)

            lost = drops(without, whole, chosen, self.batch_size)
            weights = torch.zeros_like(grid[:, :, 0, 0]).scatter(1, chosen, lost.float())
            found.append(summed(weights[:, :, None, None] * grid, eigen_smooth))
        return found

    def blank(self, out: Any, grid: Float[Tensor, "b c h w"], pixels: Tensor, name: str) -> Blank:
        """Return a function that sets a channel of the grid to 0 in the layer's output."""
        if isinstance(out, dict) and all(isinstance(level, Tensor) and level.ndim == 4 for level in out.values()):
            widths = [level.shape[1] for level in out.values()]
            if sum(widths) == grid.shape[1]:
                return lambda copies, channels: silence_levels(list(copies.values()), channels)
        to_grid = self.reshape_transform or layout(out, pixels, name).to_grid
        if not isinstance(out, Tensor) or to_grid(out).untyped_storage().data_ptr() != out.untyped_storage().data_ptr():
            raise InputError(
                f"`reshape_transform` must return a view of the output of the layer {name!r}, or join the maps of a "
                "dict, but it computes new values. Leave it out, or name another layer."
            )
        return lambda copies, channels: silence(to_grid(copies), channels)

    def chosen(self, grid: Float[Tensor, "b c h w"]) -> Int[Tensor, "b n"]:
        """Return the channels to ablate."""
        n_channels = grid.shape[1]
        if self.ratio_channels_to_ablate == 1:
            return torch.arange(n_channels, device=grid.device).expand(len(grid), -1)
        varied = stretched(first_component(grid, grid.abs().mean(1)).abs()[:, None], (2, 3), 1e-8) > 0.01
        shape = stretched(grid.abs(), (2, 3), 1e-8)
        order = ((varied * shape).sum((2, 3)) / shape.sum((2, 3))).nan_to_num(0).argsort(1)
        n = max(1, int(n_channels * self.ratio_channels_to_ablate))
        return torch.cat([order.flip(1)[:, :n], order[:, :n]], 1)

    def rerun(self, name: str, features: Any, pixels: Tensor, n_copies: int) -> Any:
        """Compute the network's output from a changed output of the layer."""
        if name not in self._tails:  # following the graph takes longer than running it
            halves = cut_by_graph(self.model, name, None) if isinstance(features, Tensor) else None
            self._tails[name] = None if halves is None else halves[1]
        if (tail := self._tails[name]) is not None:
            return tail(features)

        def changed(_: nn.Module, _args: Any, out: Any) -> Any:
            return (features, *out[1:]) if isinstance(out, tuple) else features

        with self._layers[name].register_forward_hook(changed):
            return self.model(pixels.repeat(n_copies, 1, 1, 1))


def silence_levels(levels: list[Tensor], channels: Int[Tensor, " n"]) -> None:
    """Set channels to 0 in several maps; the channels are numbered consecutively over the maps."""
    first = 0
    for level in levels:
        rows = ((channels >= first) & (channels < first + level.shape[1])).nonzero()[:, 0]
        level[rows, channels[rows] - first] = 0
        first += level.shape[1]
