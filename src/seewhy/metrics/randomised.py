"""Metrics that compute maps again for a randomised model, another class or noisy pixels."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..bounds import Count, NotNegative
from ..seeded import seeded
from . import metrics
from .base import AveragedMetric, Case, InputError, Maps, Score, min_max, scores
from .similarity import spearman, ssim

if TYPE_CHECKING:
    from ..attributions.base import Explainable
    from ..encoders.base import Encoder
    from ..heads.head import Head

Reset = Literal["initialise", "shuffle"]
BATCH = 16
"""Number of noisy pictures per batch."""


@dataclass(frozen=True)
class RandomisedModel:
    """A deep copy of a classifier whose weights can be reset."""

    encoder: Encoder
    head: Head

    @property
    def network(self) -> None:
        """Raise an error: a method that reads the trained network would explain the original weights."""
        raise InputError(
            "This attribution method reads the trained network, which a randomised copy of the model does not have. "
            "Leave this method out."
        )


def twin(model: Explainable) -> RandomisedModel:
    """Return a deep copy of the model that runs in torch."""
    old = model.encoder
    # Submodules shared by trunk, head and network stay shared.
    trunk, pool, whole = copy.deepcopy((old.trunk, old.head, old.module))
    names = {"name": f"{old.name} (copy)", "fingerprint": f"{old.fingerprint} copy", "classifier": None, "text": None}
    encoder = old.but(**names, trunk=lambda: trunk, head=pool, module=lambda: whole, engine="torch:f32")
    return RandomisedModel(encoder, copy.deepcopy(model.head))


def layers(model: RandomisedModel) -> list[nn.Module]:
    """Return all layers with parameters, output layer first."""
    every: list[nn.Module] = [model.head]
    for part in (model.encoder.head, model.encoder.trunk):
        every += [m for m in reversed(list(part.modules())) if any(True for _ in m.parameters(recurse=False))]
    return every


def forget(layer: nn.Module, how: Reset, seed: int) -> None:
    """Reset a layer's weights.

    ``"initialise"`` calls ``reset_parameters`` if the layer has it. For other layers, it draws weights from a normal
    distribution with the mean and standard deviation of the old weights. ``"shuffle"`` permutes the old weights.
    """
    if how not in ("initialise", "shuffle"):
        raise InputError(f"`reset` must be 'initialise' or 'shuffle', got {how!r}.")
    generator = torch.Generator().manual_seed(seed)
    reset = getattr(layer, "reset_parameters", None)
    if how == "initialise" and callable(reset):
        with seeded(seed), torch.no_grad():
            reset()
        return
    own: list[Tensor] = [*layer.parameters(recurse=False)] or [*layer.buffers(recurse=False)]
    with torch.no_grad():
        for weight in own:
            if how == "shuffle" or weight.numel() < 2:
                places = torch.randperm(weight.numel(), generator=generator)
                weight.copy_(weight.flatten()[places].reshape(weight.shape))
            else:
                drawn = torch.randn(weight.shape, generator=generator)
                weight.copy_(drawn * weight.std().cpu() + weight.mean().cpu())


def forgetful(case: Case, n_steps: int, reset: Reset, seed: int) -> Iterator[RandomisedModel]:
    """Yield a copy of the model ``n_steps`` times, each time with more layers reset, output layer first."""
    assert case.model is not None  # checked by the base class
    copied = twin(case.model)
    every = layers(copied)
    done = 0
    for step in range(1, n_steps + 1):
        until = max(math.ceil(len(every) * step / n_steps), min(step, len(every)))
        for i in range(done, until):
            forget(every[i], reset, seed + i)
        done = until
        yield copied


class Again(AveragedMetric):
    """A metric that computes maps for changed inputs or models."""

    family = "randomisation"
    needs = "the attribution method"
    reads = "map"
    sign = "as it is"
    requires = ("model", "methods")


@dataclass(frozen=True)
class Forgetting(Again):
    """A metric that compares a map with maps of randomised copies of the model, by rank correlation."""

    needs = "the attribution method and the model in torch"
    higher_is_better = False
    bounds = (-1.0, 1.0)
    sign = "as it is; of absolute values beside it"

    def compared(self, maps: Maps, changed: Sequence[Maps]) -> list[Score]:
        """Return the rank correlations of each map, and of its absolute values, with the map at every step."""
        curves = []
        for i, heat in enumerate(maps):
            later = torch.stack([step[i] for step in changed]).flatten(1)
            before = heat.flatten().expand_as(later)
            # The correlation of two constant maps is undefined; 1 means no change.
            same = (before == before[:, :1]).all(1) & (later == later[:, :1]).all(1)
            pairs = ((before, later), (before.abs(), later.abs()))
            curves.append(torch.stack([spearman(*pair).masked_fill(same, 1.0) for pair in pairs]))
        signed, absolute = torch.stack(curves, 1)
        return scores(signed.mean(1), curve=signed, absolute=absolute.mean(1), absolute_curve=absolute)


@metrics.register
@dataclass(frozen=True)
class ModelRandomisation(Forgetting):
    """Rank correlation between the map and the maps of increasingly randomised copies of the model; low is good.

    Layers are reset cumulatively, output layer first. The score is the mean Spearman correlation over the steps.
    ``parts`` has the correlation at each step, for values and for absolute values.

    Args:
        n_steps: number of steps, each with more reset layers.
        reset: ``"initialise"`` (paper) or ``"shuffle"`` the weights.
    """

    name = "model_randomisation"
    paper = "Adebayo et al. 2018, arXiv:1810.03292"
    cost = "one explanation per step, in torch"
    small = {"n_steps": 2}

    n_steps: Count = 5
    reset: Reset = "initialise"
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        models = forgetful(case, self.n_steps, self.reset, self.seed)
        return self.compared(maps, [case.explain(case.pixels[None], model=model)[:, 0] for model in models])


@metrics.register
@dataclass(frozen=True)
class SmoothModelRandomisation(Forgetting):
    """Model randomisation with maps averaged over noisy pictures, which reduces noise in the maps; low is good.

    Args:
        n_steps: number of steps, each with more reset layers.
        n_samples: number of noisy pictures per map.
        noise: standard deviation of the noise, in normalised units.
        reset: ``"initialise"`` or ``"shuffle"`` the weights.
    """

    name = "smooth_model_randomisation"
    paper = "Hedström et al. 2024, arXiv:2401.06465"
    cost = "n_samples explanations per step, in torch"
    small = {"n_samples": 2, "n_steps": 2}

    n_steps: Count = 5
    n_samples: Count = 10
    noise: NotNegative = 0.1
    reset: Reset = "initialise"
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        models = forgetful(case, self.n_steps, self.reset, self.seed)
        return self.compared(self._smooth(case, case.model), [self._smooth(case, model) for model in models])

    def _smooth(self, case: Case, model: object) -> Maps:
        """Return the mean map of every method over noisy pictures."""
        if self.noise == 0:
            return case.explain(case.pixels[None], model=model)[:, 0]
        generator = torch.Generator().manual_seed(self.seed)
        total = torch.zeros(len(case.methods or ()), *case.pixels.shape[1:])
        for part in torch.arange(self.n_samples).split(BATCH):
            grain = torch.stack([torch.randn(case.pixels.shape, generator=generator) for _ in part]) * self.noise
            total += case.explain(case.pixels + grain, model=model).sum(1)
        return total / self.n_samples


@metrics.register
@dataclass(frozen=True)
class EfficientModelRandomisation(Again):
    """Relative increase of the map's entropy when all weights are random; high is good.

        (H(R') - H(R)) / H(R)

    ``R`` is the map of the model, ``R'`` the map of the model with random weights, and ``H`` the entropy of the
    histogram of a map's values.

    Args:
        n_bins: number of bins of the histogram.
        reset: ``"initialise"`` or ``"shuffle"`` the weights.
    """

    name = "efficient_model_randomisation"
    paper = "Hedström et al. 2024, arXiv:2401.06465"
    needs = "the attribution method and the model in torch"
    cost = "one explanation, in torch"
    higher_is_better = True
    bounds = (-1.0, float("inf"))

    n_bins: Count = 100
    reset: Reset = "initialise"
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        (model,) = forgetful(case, 1, self.reset, self.seed)
        found = []
        for heat, after in zip(maps, case.explain(case.pixels[None], model=model)[:, 0], strict=True):
            old, new = (self._entropy(one) for one in (heat, after))
            value = (new - old) / max(old, 1e-9) if new != old else 0.0
            found.append(Score(value, {"before": old, "after": new}, (value,)))
        return found

    def _entropy(self, heat: Float[Tensor, "h w"]) -> float:
        counts = torch.histc(heat.flatten().double(), self.n_bins)
        q = counts / counts.sum()
        return float(-torch.xlogy(q, q).sum())


@metrics.register
@dataclass(frozen=True)
class RandomLogit(Again):
    """Structural similarity between the map of the target and the map of a random other class; low is good.

    Args:
        n_classes: number of other classes to average over (paper: 1).
    """

    name = "random_logit"
    paper = "Sixt et al. 2020, arXiv:1912.09818"
    cost = "one explanation"
    higher_is_better = False
    bounds = (-1.0, 1.0)
    sign = "min-max to 0…1"

    n_classes: Count = 1
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        assert case.model is not None  # checked by the base class
        others = [k for k in range(len(case.model.head.bias)) if k != case.target]
        if not others:
            raise InputError(f"{self.name} needs a model with at least two classes, got one. Leave this metric out.")
        order = torch.randperm(len(others), generator=torch.Generator().manual_seed(self.seed)).tolist()
        drawn = [others[i] for i in order[: self.n_classes]]
        values = torch.zeros(len(maps))
        for k in drawn:
            changed = case.explain(case.pixels[None], target=k)[:, 0]
            values += ssim(min_max(maps), min_max(changed)) / len(drawn)
        return scores(values, other=drawn)


@metrics.register
@dataclass(frozen=True)
class MaxSensitivity(Again):
    """Largest relative change of the map under small random changes of the picture; low is good.

        max_{|d|_∞ ≤ r} |R(x + d) - R(x)| / |R(x)|

    ``R`` is the map, ``x`` the picture, ``r`` the radius, and ``d`` a uniform random change.

    Args:
        radius: largest change ``r`` of a pixel, in units of normalised pixels.
        n_samples: number of random changes.
    """

    name = "max_sensitivity"
    paper = "Yeh et al. 2019, arXiv:1901.09392"
    family = "robustness"
    cost = "one explanation per sample"
    higher_is_better = False
    bounds = (0.0, float("inf"))
    small = {"n_samples": 3}

    radius: NotNegative = 0.2
    n_samples: Count = 10
    batch_size: Count = 16
    seed: int = 0

    def score(self, case: Case, maps: Maps) -> list[Score]:
        generator = torch.Generator().manual_seed(self.seed)
        largest = torch.zeros(len(maps))
        for part in torch.arange(self.n_samples).split(self.batch_size):
            grain = (2 * torch.rand(len(part), *case.pixels.shape, generator=generator) - 1) * self.radius
            moved = case.explain(case.pixels + grain) - maps[:, None]
            largest = torch.maximum(largest, moved.flatten(2).norm(dim=2).amax(1))
        norms = maps.flatten(1).norm(dim=1)
        return scores(torch.where(largest > 0, largest / norms.clamp(min=1e-12), 0.0))
