"""Base classes of all metrics, and the functions they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from ..bounds import Checked
from ..errors import InputError as InputError
from ..threads import beside
from ..types import Transform

if TYPE_CHECKING:
    from ..attributions.base import Explainable
    from ..encoders.base import EncoderOutput
    from ..heads.head import Target

Maps = Float[Tensor, "m h w"]
Mask = Bool[Tensor, "h w"]
Of = Literal["probability", "logit"]
Probability = Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b k"]]
"""A function from normalised pixels to class probabilities or logits."""
Explain = Callable[["Explainable", "EncoderOutput", "Target"], Float[Tensor, "b h w"]]
"""A function that computes a map for each picture of a batch."""


@dataclass(frozen=True)
class Score:
    """Score of one map.

    Attributes:
        sums: numbers whose means over all pictures :meth:`Metric.combine` takes.
        settings: settings that the value depends on, as text.
    """

    value: float
    parts: dict[str, Any] = field(default_factory=dict)
    sums: tuple[float, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict, compare=False)


def curve_score(steps: Sequence[float], values: Sequence[float]) -> Score:
    """Return the area under the curve of the target's probability, by the share of changed pixels, from 0 to 1."""
    area = float(torch.trapezoid(torch.tensor(values), torch.tensor(steps)))
    return Score(area, {"steps": list(steps), "values": list(values)}, (area,))


@dataclass(frozen=True)
class Case:
    """A picture, a model and a class, for which maps are scored.

    Attributes:
        probability: function from normalised pixels to class probabilities.
        logits: function from normalised pixels to logits.
        target: index of the class that the maps explain.
        mask: boolean mask of the target's object, of the picture's size.
        transform: preprocessing of the model; needed for ``fill="black"`` and ``space="raw"``.
        model: classifier that ``methods`` explain; metrics that compute maps again need it.
        methods: the attribution method of each map.
        memo: cache shared by metrics.
    """

    probability: Probability
    pixels: Float[Tensor, "3 h w"]
    target: int
    logits: Probability | None = None
    transform: Transform | None = None
    mask: Bool[Tensor, "h w"] | None = None
    model: Explainable | None = None
    methods: Sequence[Explain] | None = None
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        model: Explainable,
        pixels: Float[Tensor, "3 h w"],
        target: int,
        *,
        methods: Sequence[Explain] | None = None,
        mask: Bool[Tensor, "h w"] | None = None,
    ) -> Case:
        """Build a case from a classifier, normalised pixels and a target class."""

        def logits(batch: Tensor) -> Tensor:
            with torch.no_grad():
                return model.head(model.encoder.pooled(batch))

        return cls(
            lambda batch: logits(batch).softmax(1),
            pixels,
            target,
            logits=logits,
            transform=model.encoder.transform,
            mask=mask,
            model=model,
            methods=methods,
        )

    def reader(self, of: Of) -> Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, " b"]]:
        """Return a function from normalised pixels to the target's probability or logit."""
        function = self.probability if of == "probability" else self.logits
        if function is None:
            raise InputError("This metric needs logits, but the case has only probabilities. Pass logits=… to Case.")
        return lambda batch: function(batch)[:, self.target]

    def explain(
        self, pixels: Float[Tensor, "b 3 h w"], *, model: Any = None, target: int | None = None
    ) -> Float[Tensor, "m b h w"]:
        """Compute the map of every method, optionally for other pixels, another class or another model."""
        from ..heads.head import Target as TargetFunction

        model = model or self.model
        index = torch.full((len(pixels),), self.target if target is None else target)
        look, size = model.encoder.encode(pixels), (self.pixels.shape[1], self.pixels.shape[2])
        return torch.stack(
            [upsampled(method(model, look, TargetFunction(index)), size) for method in self.methods or ()]
        )


@dataclass(frozen=True)
class Metric(Checked, ABC):
    """A metric of a map's quality.

    Class attributes:
        name: registered name of the metric.
        paper: reference of the paper.
        family: faithfulness, localisation, randomisation, robustness or complexity.
        needs: inputs in addition to the map, in words.
        requires: fields of :class:`Case` that must be set.
        cost: number of forward passes per map.
        higher_is_better: whether a higher value is better.
        bounds: lowest and highest possible value.
        reads: what the metric uses: ``"probability"``, ``"logit"`` or ``"map"``.
        sign: how the metric treats negative values of the map.
        of_mosaics: whether the metric needs mosaics of several pictures.
        small: fast settings for tests: ``cls(**cls.small)``.

    Args:
        fill: replacement of removed pixels, such as ``"mean"`` or ``"blur"``.
        of: the model's output that the metric uses: ``"logit"`` or ``"probability"``.
        batch_size: number of pictures per forward pass.
        seed: seed of random numbers and of the order of equal map values.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    family: ClassVar[str] = "faithfulness"
    needs: ClassVar[str] = "a map and the model"
    cost: ClassVar[str]
    higher_is_better: ClassVar[bool]
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    reads: ClassVar[str] = "probability"
    sign: ClassVar[str] = "as it is, pixels by falling value"
    requires: ClassVar[tuple[str, ...]] = ()
    of_mosaics: ClassVar[bool] = False
    small: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def score(self, case: Case, maps: Maps) -> Sequence[Score]:
        """Compute one score per map; the maps have the picture's size."""

    @abstractmethod
    def combine(self, means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
        """Compute the value for a data set from the means of :attr:`Score.sums` over the pictures."""

    def measure(self, case: Case, maps: Float[Tensor, "m gh gw"]) -> list[Score]:
        """Return one score per map."""
        for name in self.requires:
            if getattr(case, name) is None:
                raise InputError(f"The metric {self.name} needs `{name}`. Pass {name}=… to Case.")
        if not maps.isfinite().all():
            raise InputError(f"Maps must be finite, but {self.name} got NaN or infinite values.")
        if case.methods is not None and len(case.methods) != len(maps):
            raise InputError(
                f"`methods` must have one entry per map, got {len(case.methods)} methods for {len(maps)} maps."
            )
        height, width = case.pixels.shape[1:]
        own = {"metric": self.name, **asdict(self), "target": case.target, "size": [height, width]}
        settings = {**own, "reads": getattr(self, "of", self.reads), "sign": self.sign}
        with nullcontext() if case.model is None else beside(case.model.encoder.engine.name):
            found = self.score(case, upsampled(maps, (height, width)))
        return [replace(one, settings=settings) for one in found]

    def __call__(
        self,
        probability: Probability,
        pixels: Float[Tensor, "3 h w"],
        maps: Float[Tensor, "m gh gw"],
        target: int,
        **given: Any,
    ) -> list[Score]:
        """Call :meth:`measure` on ``Case(probability, pixels, target, **given)``."""
        return self.measure(Case(probability, pixels, target, **given), maps)


@dataclass(frozen=True)
class AveragedMetric(Metric):
    """A metric whose value for a data set is the mean over the pictures."""

    def combine(self, means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
        return means[..., 0]


def scores(values: Sequence[float] | Tensor, /, **parts: Any) -> list[Score]:
    """Build a :class:`Score` from each value; tensors among the parts have one row per value."""
    columns = {n: p.tolist() if isinstance(p, Tensor) and p.ndim else [p] * len(values) for n, p in parts.items()}
    return [Score(v, {n: rows[i] for n, rows in columns.items()}, (v,)) for i, v in enumerate(map(float, values))]


def read_in_batches(
    reader: Callable[[Tensor], Tensor], make: Callable[[Tensor], Tensor], n: int, batch_size: int
) -> Float[Tensor, " n"]:
    """Apply ``reader`` to ``n`` changed pictures in batches of ``batch_size``."""
    parts = [reader(make(index)) for index in torch.arange(n).split(batch_size)]
    return torch.cat(parts) if parts else torch.empty(0)


def upsampled(maps: Float[Tensor, "m gh gw"], size: tuple[int, int]) -> Float[Tensor, "m h w"]:
    """Upsample maps bilinearly to the picture's size."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps.float()
    return interpolate(maps[:, None].float(), size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def ranks(maps: Float[Tensor, "m gh gw"], size: torch.Size | tuple[int, int], seed: int) -> Int[Tensor, "m h w"]:
    """Rank the pixels of each map from 0, highest value first; ties are broken at random."""
    full = upsampled(maps, (size[0], size[1])).flatten(1)
    shuffle = torch.randperm(full.shape[1], generator=torch.Generator().manual_seed(seed))
    order = shuffle[_falling(full[:, shuffle])]
    places = torch.arange(full.shape[1], dtype=torch.int32).expand_as(order)
    found = torch.empty_like(places, memory_format=torch.contiguous_format).scatter_(1, order, places)
    return found.unflatten(1, tuple(size))


def _falling(values: Float[Tensor, "m n"]) -> Int[Tensor, "m n"]:
    """Return the indices of a stable sort of each row in descending order."""
    bits = (values + 0.0).contiguous().numpy().view(np.int32)  # −0 is 0
    rising = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
    keys = np.sort((-rising << 32) | np.arange(bits.shape[1]), axis=1)
    return torch.from_numpy(keys & 0xFFFFFFFF)


def min_max(maps: Float[Tensor, "m h w"]) -> Float[Tensor, "m h w"]:
    """Scale each map to 0…1; a constant map becomes 1."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp(min=1e-12), torch.ones_like(maps))


N_COARSE = 64
"""Largest number of grid cells per side of a feature map; larger maps are taken to be pixel maps."""
N_BLOCKS = 7
"""Smallest number of blocks per side in which a pixel map is shuffled."""


def shuffled(heat: Float[Tensor, "h w"], n: int, seed: int) -> Float[Tensor, "n h w"]:
    """Shuffle a map ``n`` times, in blocks as large as its spots; shuffled maps are a baseline for metrics."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = block_side(heat)
    n_rows, n_columns = heat.shape[0] // rows, heat.shape[1] // columns
    fits = heat.shape == (n_rows * rows, n_columns * columns)
    found = []

    def rolled(heat: Tensor) -> Tensor:
        return heat.roll([int(torch.randint(side, (), generator=generator)) for side in heat.shape], (0, 1))

    for _ in range(n):
        # Pixels that no block covers lie at the edge. Rolling before and after lets them lie anywhere.
        new = heat.clone() if fits else rolled(heat)
        inside = new[: n_rows * rows, : n_columns * columns]
        blocks = inside.reshape(n_rows, rows, n_columns, columns).transpose(1, 2).flatten(0, 1)
        moved = blocks[torch.randperm(len(blocks), generator=generator)]
        inside.copy_(moved.unflatten(0, (n_rows, n_columns)).transpose(1, 2).reshape(inside.shape))
        found.append(new if fits else rolled(new))
    return torch.stack(found)


def block_side(heat: Float[Tensor, "h w"]) -> tuple[int, int]:
    """Return height and width of the blocks in which a map is shuffled: 1 for feature maps, else its spots' width."""
    return (1, 1) if max(heat.shape) <= N_COARSE else (_block(heat), _block(heat.T))


def _block(heat: Float[Tensor, "h w"]) -> int:
    side, centred = len(heat), heat.double() - heat.double().mean()
    energy, lag = float(centred.square().mean()), 1
    while lag < side // N_BLOCKS and float((centred[lag:] * centred[:-lag]).mean()) > energy / 2:
        lag += 1
    divisor = max(d for d in range(1, lag + 1) if side % d == 0)
    return divisor if 2 * divisor >= lag else lag
