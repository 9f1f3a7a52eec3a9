"""ROAD (Rong et al. 2022, arXiv 2202.00449): removed pixels are filled in from their neighbours."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from ..bounds import Count, NotNegative
from . import metrics
from .base import AveragedMetric, Case, Maps, Score, ranks, read_in_batches, scores


@metrics.register
@dataclass(frozen=True)
class ROAD(AveragedMetric):
    """Half the gap in probability between removing the least and the most relevant pixels; high is good.

    ``ROAD = mean_q (p(x without the lowest q) - p(x without the highest q)) / 2``, removed pixels filled in linearly
    from their neighbours plus noise. ``parts`` has both curves: ``morf`` should be low, ``lerf`` high.

    Args:
        fractions: parts of the pixels removed.
        noise: standard deviation of the noise, in normalised units.
        batch_size: pictures a forward pass sees.
        seed: of the noise and of tied pixels.
    """

    name = "road"
    paper = "Rong et al. 2022, arXiv:2202.00449"
    cost = "two per fraction"
    higher_is_better = True
    bounds = (-0.5, 0.5)

    fractions: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    noise: NotNegative = 0.01
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        places = ranks(maps, case.pixels.shape[1:], self.seed)
        n_pixels, n = case.pixels[0].numel(), len(self.fractions)
        cuts = [round(f * n_pixels) for f in self.fractions]
        first = torch.tensor([0] * n + [n_pixels - c for c in cuts])  # most relevant first, then least
        last = torch.tensor([*cuts, *[n_pixels] * n])
        grain = torch.randn(case.pixels.shape, generator=torch.Generator().manual_seed(self.seed)) * self.noise

        def make(index: Tensor) -> Tensor:
            rank, i = places[index // (2 * n)], index % (2 * n)
            missing = (rank >= first[i][:, None, None]) & (rank < last[i][:, None, None])
            return impute(case.pixels, missing) + grain * missing[:, None]

        read = case.reader("probability")
        table = read_in_batches(read, make, len(maps) * 2 * n, self.batch_size).reshape(len(maps), 2, n)
        morf, lerf = table.unbind(1)
        values = (lerf - morf).mean(1) / 2
        return scores(values, morf=morf.mean(1), lerf=lerf.mean(1), morf_curve=morf, lerf_curve=lerf)


def impute(
    pixels: Float[Tensor, "c h w"],
    missing: Bool[Tensor, "b h w"],
    tolerance: float = 1e-4,
    max_iterations: int = 200,
) -> Float[Tensor, "b c h w"]:
    """Solve ``x_i = Σ_j w_ij x_j / Σ_j w_ij`` for every missing pixel, known pixels held.

    ``w`` is 1/6 for the four direct neighbours, 1/12 for the diagonal ones, 0 outside the picture. Conjugate gradients
    begin from the solution on a grid of half the size (cascadic multigrid): the work grows with the pixels.
    """
    # One mask at a time stays in the processor's cache, which is several times as fast as all together.
    known = [(~one)[None, None].to(pixels) for one in missing]
    return torch.cat([_solve(pixels[None] * one, one, tolerance, max_iterations) for one in known])


def _solve(values: Tensor, known: Tensor, tolerance: float, max_iterations: int) -> Tensor:
    height, width = known.shape[2:]
    start = values
    if bool(known.all()):
        return values
    if min(height, width) > 4:
        even = (0, width % 2, 0, height % 2)
        weight = avg_pool2d(pad(known, even), 2)
        coarse = avg_pool2d(pad(values, even), 2) / weight.clamp(min=1e-6)
        half = _solve(coarse, (weight > 0).to(known), tolerance, 2 * max_iterations)
        fine = interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)[..., :height, :width]
        start = torch.where(known > 0, values, fine)
    return _conjugate_gradients(start, known, tolerance, max_iterations)


def _conjugate_gradients(start: Tensor, known: Tensor, tolerance: float, max_iterations: int) -> Tensor:
    """All channels as one system, on vectors with a border of zeros: then a neighbour is an offset."""
    channels, height, width = start.shape[1:]
    row = width + 2
    free = pad(1 - known, (1, 1, 1, 1)).expand(1, channels, -1, -1).flatten()
    degree = _ring(pad(torch.ones_like(known), (1, 1, 1, 1)).expand(1, channels, -1, -1).flatten(), row)
    inner = slice(row + 1, -row - 1)
    free, x = free[inner].contiguous(), pad(start, (1, 1, 1, 1)).flatten()
    # Σ_j w_ij (x_i - x_j), of which the ring counts x_i itself with 4/12.
    centre = (degree / 12) * free
    residual = (_ring(x, row) / 12 * free).sub_(centre * x[inner])
    direction = torch.zeros_like(x)
    direction[inner] = residual
    energy = torch.dot(residual, residual)
    work = [x.new_empty(len(x) - 1), x.new_empty(len(x) - 2)]
    image = torch.empty_like(residual)
    for done in range(max_iterations):
        if done % 4 == 0 and float(residual.abs().amax()) <= tolerance:
            break
        ahead = direction[inner]
        torch.mul(centre, ahead, out=image)
        image.addcmul_(_ring(direction, row, work), free, value=-1 / 12)
        step = float(energy) / max(float(torch.dot(ahead, image)), 1e-30)
        x[inner].add_(ahead, alpha=step)
        residual.add_(image, alpha=-step)
        before, energy = energy, torch.dot(residual, residual)
        ahead.mul_(float(energy) / max(float(before), 1e-30)).add_(residual)
    return x.unflatten(0, (1, channels, height + 2, row))[..., 1:-1, 1:-1].contiguous()


def _ring(x: Tensor, row: int, work: list[Tensor] | None = None) -> Tensor:
    """``[1 2 1]ᵀ[1 2 1]`` of every pixel but the border's, as sums of pairs."""
    if work is None:
        work = [x.new_empty(len(x) - 1), x.new_empty(len(x) - 2)]
    one, two = work
    torch.add(x[:-1], x[1:], out=one)
    torch.add(one[:-1], one[1:], out=two)
    torch.add(two[:-row], two[row:], out=one[: len(two) - row])
    one = one[: len(two) - row]
    return torch.add(one[:-row], one[row:], out=two[: len(one) - row])
