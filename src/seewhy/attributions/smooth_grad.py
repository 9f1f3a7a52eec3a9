"""SmoothGrad (Smilkov et al. 2017, arXiv 1706.03825), through Captum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from . import attributions
from .captum_base import CaptumGradients, Forward

if TYPE_CHECKING:
    from ..encoders.base import Encoder


@attributions.register
@dataclass(frozen=True)
class SmoothGrad(CaptumGradients):
    """Averages the gradient over noisy copies of the picture.

    ``S = 1/n Σ ∂y/∂x (x + N(0, σ²))`` (paper, section 3), signed. Not multiplied by the picture: where it is large,
    a change of the pixels would change the target; that need not be where the evidence lies.

    Args:
        n_samples: noisy copies; the paper's 50.
        noise: ``σ / (x_max − x_min)``; the paper takes 0.1 to 0.2.
        seed: of the noise.
    """

    name: ClassVar[str] = "smooth_grad"
    paper: ClassVar[str] = "Smilkov et al. 2017, arXiv:1706.03825"
    cost: ClassVar[str] = "50 forward and 50 backward"
    stochastic: ClassVar[bool] = True
    small: ClassVar = {"n_samples": 6}

    n_samples: int = 50
    noise: float = 0.15
    seed: int = 0

    def run(
        self, captum: Any, forward: Forward, picture: Float[Tensor, "1 3 h w"], encoder: Encoder
    ) -> Float[Tensor, "1 3 h w"]:
        method = captum.NoiseTunnel(captum.Saliency(forward))
        low, high = picture.detach().aminmax()
        return method.attribute(
            picture,
            nt_type="smoothgrad",
            nt_samples=self.n_samples,
            nt_samples_batch_size=min(self.batch_size, self.n_samples),
            stdevs=self.noise * float((high - low).nan_to_num(0.0, posinf=0.0)),
            abs=False,
        )
