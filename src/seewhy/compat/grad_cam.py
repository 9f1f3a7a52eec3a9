"""pytorch-grad-cam's methods that read gradients, from our mathematics.

The graph is cut at the layer, and the model's gradients, mode and hooks are as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..attributions.cam import CAM, WeightedCAM
from ..attributions.eigen_grad_cam import EigenGradCAM as _EigenGradCAM
from ..attributions.finer_cam import likest
from ..attributions.cam import first_component
from ..attributions.full_grad import enlarged, full_gradient, stretched
from ..attributions.grad_cam import GradCAM as _GradCAM
from ..attributions.grad_cam_elementwise import GradCAMElementwise as _GradCAMElementwise
from ..attributions.grad_cam_plus_plus import GradCAMPlusPlus as _GradCAMPlusPlus
from ..attributions.hires_cam import HiResCAM as _HiResCAM
from ..attributions.layer_cam import LayerCAM as _LayerCAM
from ..attributions.xgrad_cam import XGradCAM as _XGradCAM
from .base import PeerCAM, Reshape, TestTimeTransform, summed
from .targets import Choose, FinerWeightedTarget, Targets, highest, scores


class _GradientCAM(PeerCAM):
    rule: ClassVar[CAM]

    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        found = []
        for activations, slope in self.slopes(pixels, choose):
            if eigen_smooth and isinstance(self.rule, WeightedCAM):
                found.append(summed(self.rule.weights(activations, slope) * activations, True))
            else:
                found.append(self.rule.weigh(activations, slope))
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


class SegEigenCAM(PeerCAM):
    """The first component of ``|gradient| · activation``, made for segmentation (Chung & Ying 2025, Appl. Sci. 15(13)).

    It is turned over where its lowest value is further from 0 than its highest (paper, equation 13).
    """

    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        found = []
        for activations, slope in self.slopes(pixels, choose):
            products = slope.abs() * activations
            component = first_component(products, products.sum(1))
            turned = -component.amin((1, 2)) > component.amax((1, 2))
            found.append(component * torch.where(turned, -1.0, 1.0)[:, None, None])
        return found


class ShapleyCAM(PeerCAM):
    """See :mod:`seewhy.attributions.shapley_cam`; the paper's target is ``ClassifierOutputReST``."""

    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        found = []
        with sdpa_kernel(SDPBackend.MATH):  # the fused one has no second derivative
            for activations, slope in self.slopes(pixels, choose, less_bends=True):
                weights = slope.mean((2, 3), keepdim=True)
                found.append(summed(weights * activations, eigen_smooth))
        return found


class FullGrad(PeerCAM):
    """See :mod:`seewhy.attributions.full_grad`; as with the peer, every channel is stretched by itself.

    Args:
        target_layers: not read: every bias counts.
    """

    names_layers = False

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module] = (),
        reshape_transform: Reshape | None = None,
        tta_transforms: Iterable[TestTimeTransform] | None = None,
    ) -> None:
        super().__init__(model, (), reshape_transform, tta_transforms)

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


class FinerCAM:
    """Another method's map of a class's lead over those that are likest to it, each counting by its probability.

    Args:
        model: any network whose output is ``(b, k)``.
        target_layers: its own layers.
        reshape_transform: a layer's output → ``(b, c, h, w)``.
        base_method: whose maps these are.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Reshape | None = None,
        base_method: type[PeerCAM] = GradCAM,
    ) -> None:
        self.base_cam = base_method(model, target_layers, reshape_transform)

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
        """Maps ``(b, h, w)``.

        Args:
            input_tensor: normalised pixels.
            targets: one a picture, explained as they are; ``None`` makes them.
            eigen_smooth: see :class:`PeerCAM`.
            alpha: how strongly the other classes count.
            comparison_categories: which of them: 1 is the class whose output is nearest to the explained one's.
            target_idx: the class that is explained; ``None`` takes the highest.
            aug_smooth: see :class:`PeerCAM`.
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

    def __enter__(self) -> FinerCAM:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was left in the model that would have to be taken out."""
