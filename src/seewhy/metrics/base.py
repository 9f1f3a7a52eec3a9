"""The base of every metric: the case on which maps are scored, the score, and the checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from ..bounds import check_fields
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
"""Normalised pixels → class probabilities (or logits, if a metric says so)."""


class Explain(Protocol):
    """A function that makes maps: every attribution, every control, and any callable of this form."""

    def __call__(self, model: Explainable, look: EncoderOutput, target: Target, /) -> Float[Tensor, "b h w"]: ...


@dataclass(frozen=True)
class Score:
    """The score of one map. ``sums`` are averaged over pictures first; ``settings`` hold everything that the score
    depends on.
    """

    value: float
    parts: dict[str, Any] = field(default_factory=dict)
    sums: tuple[float, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Curve:
    """Probability of the target as the changed share of the picture grows from 0 to 1."""

    steps: tuple[float, ...]
    values: tuple[float, ...]
    settings: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def area(self) -> float:
        """The trapezoid area under the curve, 0…1."""
        return float(torch.trapezoid(torch.tensor(self.values), torch.tensor(self.steps)))

    @property
    def value(self) -> float:
        return self.area

    @property
    def sums(self) -> tuple[float, ...]:
        return (self.area,)

    @property
    def parts(self) -> dict[str, Any]:
        return {"steps": list(self.steps), "values": list(self.values)}


@dataclass(frozen=True)
class Case:
    """One picture, one model and one class, for which maps are scored.

    Attributes:
        probability: the model, on normalised pixels; ``logits`` gives its values before the softmax.
        target: class that the maps explain; ``mask`` marks its object, at the picture's size.
        transform: preprocessing of the model; needed for a black fill and for raw pixels.
        model: model that the methods explain; ``methods`` made each map. Needed to compute maps again.
        memo: results that several metrics can share; copies by ``replace`` share it too.
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
        """Build the case of a classifier, run in its own engine."""

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
        """Return a function from pixels to the target's probability or logit."""
        function = self.probability if of == "probability" else self.logits
        if function is None:
            raise InputError("The case has only probabilities, and this metric reads logits. Pass logits=….")
        return lambda batch: function(batch)[:, self.target]

    def explain(
        self, pixels: Float[Tensor, "b 3 h w"], *, model: Any = None, target: int | None = None
    ) -> Float[Tensor, "m b h w"]:
        """Return every method's maps of other pixels, another class or another model, from one encoding."""
        from ..heads.head import Target as TargetFunction

        model = model or self.model
        index = torch.full((len(pixels),), self.target if target is None else target)
        look, size = model.encoder.encode(pixels), (self.pixels.shape[1], self.pixels.shape[2])
        return torch.stack(
            [upsampled(method(model, look, TargetFunction(index)), size) for method in self.methods or ()]
        )


@dataclass(frozen=True)
class Metric(ABC):
    """A measure of a map's quality.

    Class attributes: name: registered name; ``paper`` is its source. family: faithfulness, localisation,
        randomisation, robustness or complexity. needs: what it needs besides the map; ``requires`` lists the fields
        of :class:`Case` that must be set. cost: forward passes per map. higher_is_better: which direction is good,
        within ``bounds``. reads: ``"probability"``, ``"logit"`` or ``"map"``. sign: how it treats a signed map.
        of_mosaics: whether it needs mosaics of several pictures instead of a data set. small: settings for tests and
        quick trials: ``cls(**cls.small)``.

    Args:
            fill: value of removed pixels.
        of: the output to read: ``"logit"`` or ``"probability"``.
        batch_size: pictures in memory at once.
        seed: seed of random draws, and of the order of equal values.
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

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def score(self, case: Case, maps: Maps) -> Sequence[Score | Curve]:
        """Compute one score per map, for maps at the picture's size."""

    @abstractmethod
    def combine(self, means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
        """Turn means of :attr:`Score.sums` over pictures into the number of the set."""

    def measure(self, case: Case, maps: Float[Tensor, "m gh gw"]) -> list[Any]:
        """Return one score per map; the maps share whatever can be shared."""
        for name in self.requires:
            if getattr(case, name) is None:
                raise InputError(f"{self.name} needs the case's {name}. Pass {name}=… with the case.")
        if not maps.isfinite().all():
            raise InputError(f"{self.name} was given a map with NaN or infinite numbers. Expected finite maps.")
        if case.methods is not None and len(case.methods) != len(maps):
            raise InputError(
                f"{len(case.methods)} methods were given for {len(maps)} maps. Expected one method per map."
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
    ) -> list[Any]:
        """:meth:`measure` on ``Case(probability, pixels, target, **given)``."""
        return self.measure(Case(probability, pixels, target, **given), maps)


@dataclass(frozen=True)
class AveragedMetric(Metric):
    """A metric whose number for a set is the mean over pictures."""

    def combine(self, means: Float[Tensor, "*n v"]) -> Float[Tensor, "*n"]:
        return means[..., 0]


def scores(values: Sequence[float] | Tensor, /, **parts: Any) -> list[Score]:
    """Turn values into records; each part has one row per value, or one value for all."""
    rows = {name: part.tolist() if isinstance(part, Tensor) and part.ndim else part for name, part in parts.items()}
    each = {name: isinstance(parts[name], Tensor) and parts[name].ndim > 0 for name in parts}
    return [
        Score(v, {name: row[i] if each[name] else row for name, row in rows.items()}, (v,))
        for i, v in enumerate(map(float, values))
    ]


def read_in_batches(
    reader: Callable[[Tensor], Tensor], make: Callable[[Tensor], Tensor], n: int, batch_size: int
) -> Float[Tensor, " n"]:
    """Apply ``reader`` to ``n`` changed pictures, of which only ``batch_size`` exist at once."""
    parts = [reader(make(index)) for index in torch.arange(n).split(batch_size)]
    return torch.cat(parts) if parts else torch.empty(0)


def upsampled(maps: Float[Tensor, "m gh gw"], size: tuple[int, int]) -> Float[Tensor, "m h w"]:
    """Enlarge maps bilinearly to the picture's size."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps.float()
    return interpolate(maps[:, None].float(), size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def ranks(maps: Float[Tensor, "m gh gw"], size: torch.Size | tuple[int, int], seed: int) -> Int[Tensor, "m h w"]:
    """Rank pixels: 0 for a map's hottest, then 1, …; ties in random order, so that no row is favoured."""
    full = upsampled(maps, (size[0], size[1])).flatten(1)
    shuffle = torch.randperm(full.shape[1], generator=torch.Generator().manual_seed(seed))
    order = shuffle[_falling(full[:, shuffle])]
    places = torch.arange(full.shape[1], dtype=torch.int32).expand_as(order)
    found = torch.empty_like(places, memory_format=torch.contiguous_format).scatter_(1, order, places)
    return found.unflatten(1, tuple(size))


def _falling(values: Float[Tensor, "m n"]) -> Int[Tensor, "m n"]:
    """A stable falling ``argsort`` of finite values in a fifth of its time: bits and place make one sortable number."""
    bits = (values + 0.0).contiguous().numpy().view(np.int32)  # −0 is 0
    rising = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
    keys = np.sort((-rising << 32) | np.arange(bits.shape[1]), axis=1)
    return torch.from_numpy(keys & 0xFFFFFFFF)


def min_max(maps: Float[Tensor, "m h w"]) -> Float[Tensor, "m h w"]:
    """Scale each map to 0…1; a constant map becomes 1, since it prefers nothing and so keeps everything."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp(min=1e-12), torch.ones_like(maps))


N_COARSE = 64
"""Cells per side of the finest feature map; a map with more cells is made of pixels."""
N_BLOCKS = 7
"""Fewest blocks per side in which a fine map is shuffled: the cells of the usual feature map."""


def shuffled(heat: Float[Tensor, "h w"], n: int, seed: int) -> Float[Tensor, "n h w"]:
    """Shuffle a map, as a control: the same values elsewhere, in blocks as large as the map's spots, since single
    pixels would hide nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, columns = block_side(heat)
    n_rows, n_columns = heat.shape[0] // rows, heat.shape[1] // columns
    fits = heat.shape == (n_rows * rows, n_columns * columns)
    found = []

    def rolled(heat: Tensor) -> Tensor:
        return heat.roll([int(torch.randint(side, (), generator=generator)) for side in heat.shape], (0, 1))

    for _ in range(n):
        # What no block covers is at the edge: rolled before and after, it may lie anywhere.
        new = heat.clone() if fits else rolled(heat)
        inside = new[: n_rows * rows, : n_columns * columns]
        blocks = inside.reshape(n_rows, rows, n_columns, columns).transpose(1, 2).flatten(0, 1)
        moved = blocks[torch.randperm(len(blocks), generator=generator)]
        inside.copy_(moved.unflatten(0, (n_rows, n_columns)).transpose(1, 2).reshape(inside.shape))
        found.append(new if fits else rolled(new))
    return torch.stack(found)


def block_side(heat: Float[Tensor, "h w"]) -> tuple[int, int]:
    """Return height and width of the blocks that keep a map's texture: 1 and 1 up to 64 cells per side.

    For a finer map, find the lag at which its autocorrelation has fallen to one half, at most a seventh of the side.
    The block side is the largest divisor of the side up to this lag; if that is less than half the lag, the lag
    itself (331 is a prime).
    """
    return (1, 1) if max(heat.shape) <= N_COARSE else (_block(heat), _block(heat.T))


def _block(heat: Float[Tensor, "h w"]) -> int:
    """Along the first axis."""
    side, centred = len(heat), heat.double() - heat.double().mean()
    energy, lag = float(centred.square().mean()), 1
    while lag < side // N_BLOCKS and float((centred[lag:] * centred[:-lag]).mean()) > energy / 2:
        lag += 1
    divisor = max(d for d in range(1, lag + 1) if side % d == 0)
    return divisor if 2 * divisor >= lag else lag
