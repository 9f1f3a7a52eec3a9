"""SmoothGrad (Smilkov et al. 2017, arXiv 1706.03825), through Captum."""

from dataclasses import dataclass
from typing import Any

from ..bounds import Count, NotNegative
from . import attributions
from .captum_base import CaptumGradients, Encoder, Forward, Pixels


@attributions.register
@dataclass(frozen=True)
class SmoothGrad(CaptumGradients):
    """Gradient averaged over noisy copies of the picture.

        S = 1/n Σ ∂y/∂x (x + N(0, σ²))        (paper, section 3)

    ``S`` is the map, ``n`` the number of copies, ``x`` the picture, ``y`` the target's logit and ``σ`` the standard
    deviation of the noise. The map is signed and is not multiplied by the picture.

    Args:
        n_samples: number of noisy copies (paper: 50).
        noise: ``σ`` divided by the range of pixel values, ``x_max − x_min`` (paper: 0.1 to 0.2).
        seed: seed of the noise.
    """

    name = "smooth_grad"
    paper = "Smilkov et al. 2017, arXiv:1706.03825"
    cost = "50 forward and 50 backward"
    stochastic = True
    small = {"n_samples": 6}

    n_samples: Count = 50
    noise: NotNegative = 0.15
    seed: int = 0

    def run(self, captum: Any, forward: Forward, picture: Pixels, encoder: Encoder) -> Pixels:
        low, high = picture.detach().aminmax()
        return captum.NoiseTunnel(captum.Saliency(forward)).attribute(
            picture,
            nt_type="smoothgrad",
            nt_samples=self.n_samples,
            nt_samples_batch_size=min(self.batch_size, self.n_samples),
            stdevs=self.noise * float((high - low).nan_to_num(0.0, posinf=0.0)),
            abs=False,
        )
