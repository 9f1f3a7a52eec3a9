"""The base of metrics that change pixels in the order of a map and watch the probability."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from .base import AveragedMetric, Case, Curve, ranks, read_in_batches

if TYPE_CHECKING:
    from ..types import Transform


@dataclass(frozen=True)
class PixelCurve(AveragedMetric):
    """Changes pixels by falling value of a map.

    Args:
        n_steps: how many times a further part of the picture is changed. RISE changes 224 pixels a time
            (``n_steps=224`` at 224 px); fewer steps give the same area to within the curve's roughness.
        batch_size: pictures a forward pass sees; bounds memory.
        seed: how tied pixels are ordered.
    """

    cost: ClassVar[str] = "one a step"

    n_steps: int = 16
    batch_size: int = 16
    seed: int = 0

    @abstractmethod
    def ends(
        self, pixels: Float[Tensor, "3 h w"], transform: Transform | None = None
    ) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
        """The picture at step 0 and at the last step."""

    def score(self, case: Case, maps: Float[Tensor, "m h w"]) -> list[Curve]:
        first, last = (end.contiguous() for end in self.ends(case.pixels, case.transform))
        places = ranks(maps, case.pixels.shape[1:], self.seed)
        steps = torch.linspace(0, 1, self.n_steps + 1)
        cuts = (steps * first[0].numel()).round().int()
        read = case.reader("probability")
        # The two ends are the same for every map and are looked at once.
        values = read(torch.stack([first, last]))[[0, -1]].repeat(len(maps), 1)
        inner = self.n_steps - 1

        def make(index: Tensor) -> Tensor:
            changed = places[index // inner] < cuts[index % inner + 1][:, None, None]
            return torch.where(changed[:, None], last, first)

        middle = read_in_batches(read, make, len(maps) * inner, self.batch_size).reshape(len(maps), inner)
        table = torch.cat([values[:, :1], middle, values[:, 1:]], 1)
        return [Curve(tuple(steps.tolist()), tuple(row.tolist())) for row in table]
