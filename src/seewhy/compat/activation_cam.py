"""pytorch-grad-cam's methods that read no gradients, from our mathematics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..attributions.cam import first_component
from ..attributions.kpca_cam import KPCACAM, kernel_component
from ..attributions.score_cam import channel_scores
from .base import PeerCAM, Reshape, summed
from .targets import Choose, scores


class _ActivationCAM(PeerCAM):
    """Sees the layer alone, and no class."""

    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        raw, _ = self.heard(pixels)
        return [
            self.map_of(self.arranged(out, pixels, name).float(), eigen_smooth)
            for out, name in zip(raw, self._names, strict=True)
        ]

    @abstractmethod
    def map_of(self, activations: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]: ...


class EigenCAM(_ActivationCAM):
    """The sign is ours: that of the mean size of the activations. The peer's is that of its decomposition."""

    def map_of(self, activations: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]:
        return first_component(activations, activations.abs().mean(1))


class KPCA_CAM(_ActivationCAM):
    """See :mod:`seewhy.attributions.kpca_cam`; the sign is ours: that of the mean size of the activations.

    Args:
        kernel: see there.
        gamma: see there.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Reshape | None = None,
        kernel: str = "sigmoid",
        gamma: float | None = None,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        self.method = KPCACAM(kernel=kernel, gamma=gamma)

    def map_of(self, activations: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]:
        return kernel_component(activations, self.method.kernel, self.method.gamma)


class FEM(_ActivationCAM):
    """Weighs a channel by the share of its cells that stand out (Fuad et al. 2020, IPTA).

    Args:
        k: how many standard deviations above the channel's mean a cell stands out.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Reshape | None = None,
        k: float = 2,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        self.k = k

    def map_of(self, activations: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]:
        deviation, mean = torch.std_mean(activations, (2, 3), unbiased=False, keepdim=True)
        weights = (activations > mean + self.k * deviation).float().mean((2, 3))
        return torch.einsum("bc,bchw->bhw", weights, activations)


class RandomCAM(_ActivationCAM):
    """A control: channels weighed at random from -1 to 1, by NumPy's global generator, as with the peer."""

    def map_of(self, activations: Float[Tensor, "b c h w"], eigen_smooth: bool) -> Float[Tensor, "b h w"]:
        drawn = np.random.uniform(-1, 1, activations.shape[:2])
        weights = torch.from_numpy(drawn).to(activations)[:, :, None, None]
        return summed(weights * activations, eigen_smooth)


class ScoreCAM(PeerCAM):
    """Every channel is a mask, as with the peer.

    Attributes:
        batch_size: masked pictures a pass sees.
    """

    batch_size = 16

    @torch.no_grad()
    def maps(self, pixels: Float[Tensor, "b p h w"], choose: Choose, eigen_smooth: bool) -> list[Tensor]:
        raw, output = self.heard(pixels)
        targets = choose(output)
        found = []
        for out, name in zip(raw, self._names, strict=True):
            grid = self.arranged(out, pixels, name).float()
            weights = channel_scores(
                lambda masked: scores(targets, self.model(masked))[:, None],
                pixels,
                grid,
                lambda values: values[:, 0],
                0,
                self.batch_size,
            ).softmax(1)
            found.append(summed(weights[:, :, None, None] * grid, eigen_smooth))
        return found
