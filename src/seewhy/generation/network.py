"""The generator's network: a code becomes a small picture (Nguyen et al. 2017, arXiv:1612.00005, appendix)."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError

LEAK = 0.3
"""Of the released generator, everywhere but behind the last layer."""
SIDES = (16, 32, 64, 128)
"""Of the pictures, in pixels."""
LEAST_SPREAD = 0.05
"""Of a unit of the code, as a part of the mean over units: what hardly ever fires is not blown up."""


class GeneratorNetwork(nn.Module):
    """Three full layers, 4 × 4 cells, then a doubling of the side with each transposed convolution.

    The authors' has no sigmoid; here it keeps every picture one that can be shown, so that what the networks are given
    is what a person sees. Units of the code are centred and scaled first, by numbers from the training codes.

    Args:
        n_code: units of the code.
        side: of the pictures.
        width: channels at the full side; at most eight times as many at the start.
        hidden: units of the full layers.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, n_code: int, side: int = 64, width: int = 32, hidden: int = 512) -> None:
        super().__init__()
        if side not in SIDES or min(n_code, width, hidden) < 1:
            raise InputError(
                f"The generator was given side={side}, width={width}, hidden={hidden}. A side of "
                f"{', '.join(map(str, SIDES))} pixels and numbers above 0 were expected. Change them."
            )
        self.side = side
        n_up = SIDES.index(side) + 2
        channels = [width * min(8, 2 ** (n_up - i)) for i in range(n_up)] + [width]
        self.first = nn.Sequential(
            nn.Linear(n_code, hidden),
            nn.LeakyReLU(LEAK),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(LEAK),
            nn.Linear(hidden, channels[0] * 16),
            nn.LeakyReLU(LEAK),
        )
        ups: list[nn.Module] = []
        for n_in, n_out in pairwise(channels):
            ups += [nn.ConvTranspose2d(n_in, n_out, 4, 2, 1), nn.LeakyReLU(LEAK)]
        self.ups = nn.Sequential(*ups, nn.Conv2d(width, 3, 3, 1, 1))
        self.register_buffer("centre", torch.zeros(n_code))
        self.register_buffer("spread", torch.ones(n_code))

    def scale_to(self, codes: Float[Tensor, "n d"]) -> None:
        """Centre and scale codes as these are."""
        spread = codes.std(0)
        self.centre.copy_(codes.mean(0))
        self.spread.copy_(spread.clamp_min(LEAST_SPREAD * float(spread.mean()) + 1e-6))

    def forward(self, codes: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 s s"]:
        cells = self.first((codes - self.centre) / self.spread)
        pictures: Tensor = self.ups(cells.unflatten(1, (-1, 4, 4))).sigmoid()
        return pictures


def discriminator(side: int, width: int = 32) -> nn.Module:
    """Pictures → one number, high for real ones; halves the side down to 4 × 4."""
    n_down = SIDES.index(side) + 2
    channels = [3, *(width * min(4, 2**i) for i in range(n_down))]
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(channels):
        layers += [nn.Conv2d(n_in, n_out, 4, 2, 1), nn.LeakyReLU(LEAK)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels[-1], 1), nn.Flatten(0))
