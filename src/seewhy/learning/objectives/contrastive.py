"""Base classes of training objectives."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

from ...bounds import Bound, SomePart, check_fields
from ...errors import InputError

BLOCK = 2**21
"""Maximum number of scores in memory; larger batches are computed in blocks with checkpointing."""

Labels = Shaped[Tensor, "n ..."] | tuple[Shaped[Tensor, "n ..."], Shaped[Tensor, "n ..."]]
"""Labels of pairs, or separate labels of pictures and texts."""
Sides = tuple[Shaped[Tensor, "a ..."], Shaped[Tensor, "n ..."]] | None
"""Labels of rows and of columns, if given."""
Scores = Float[Tensor, "a n"]
Own = Int[Tensor, " a"]
"""Index of the matching column of each row."""
Costs = Float[Tensor, " a"]
Regions = Float[Tensor, "b r d"]
Words = Float[Tensor, "b t d"]
Said = Bool[Tensor, "b t"]
Scale = Annotated[float, Bound(1)]
SameLabel = Literal["negative", "masked", "positive"]


class Objective(ABC):
    """The base class of training objectives; a frozen dataclass whose fields are the parameters.

    Class attributes:

    * ``name``: registered name.
    * ``paper``: reference of the paper.
    * ``needs``: description of the columns that a batch must contain.
    * ``cost``: number of additional forward passes per sample.
    * ``n_texts``: number of texts drawn per picture and step, as ``spans`` says.
    * ``uses_labels``: whether the loss uses classes or findings.
    * ``plain_pairs``: whether pictures with texts are the only data needed; otherwise ``options`` names the options of
      ``seewhy adapt`` that give the rest.
    * ``small``: fast settings for tests: ``cls(**cls.small)``.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[str]
    cost: ClassVar[str] = "0"
    n_texts: int = 1
    spans: str = "text"
    uses_labels: ClassVar[bool] = False
    plain_pairs: ClassVar[bool] = True
    options: ClassVar[str] = ""
    small: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        check_fields(self, f"the objective {self.name}")
        self.check()

    def check(self) -> None:
        """Check that fields do not contradict each other."""
        return

    def refusal(self, *names: str, expected: str) -> InputError:
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return InputError(f"{expected} for the objective {self.name}, got {given}.")


def precise(vectors: Tensor) -> Tensor:
    """Convert half precision to single precision."""
    return vectors if vectors.dtype == torch.float64 else vectors.float()


class Temperature(nn.Module, ABC):
    """A module that maps cosines to scores."""

    @abstractmethod
    def forward(self, cosine: Float[Tensor, "*a n"]) -> Float[Tensor, "*a n"]:
        """Return the scores."""

    def hold(self) -> None:
        """Clamp the parameters to their bounds."""


class Fixed(Temperature):
    """Scores ``scale · cosine`` with a fixed scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, cosine: Float[Tensor, "*a n"]) -> Float[Tensor, "*a n"]:
        return self.scale * cosine


class Learnt(Temperature):
    """Scores ``exp(log_scale) · cosine``, with a learnt scale from 1 to ``most`` and an optional bias."""

    def __init__(self, scale: float, most: float, bias: float | None = None) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.most = math.log(most)
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    def forward(self, cosine: Float[Tensor, "*a n"]) -> Float[Tensor, "*a n"]:
        scores = self.log_scale.exp() * cosine
        return scores if self.bias is None else scores + self.bias

    @torch.no_grad()
    def hold(self) -> None:
        self.log_scale.clamp_(0.0, self.most)


LEAST = 0.01
"""Lower bound of a learnt temperature (CLIP)."""


class Divided(Temperature):
    """Scores ``cosine / temperature``, with a learnt temperature."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(float(temperature)))

    def forward(self, cosine: Float[Tensor, "*a n"]) -> Float[Tensor, "*a n"]:
        return cosine / self.temperature

    @torch.no_grad()
    def hold(self) -> None:
        self.temperature.clamp_(min=LEAST)


class Contrastive(Objective):
    """An objective that compares all pictures of a batch with all texts.

    Subclasses define the loss of a row of scores and the weights of the two directions.
    """

    needs: ClassVar[str] = "pictures with a text each"

    @abstractmethod
    def state(self) -> Temperature:
        """Return a new module that maps cosines to scores; its parameters are learnt."""

    def weights(self) -> tuple[float, float]:
        """Return the weights of the two directions: from pictures to texts, and from texts to pictures."""
        return 0.5, 0.5

    def rows(self, scores: Scores, own: Own, labels: Sides) -> Costs:
        """Return the loss of each row of scores."""
        return cross_entropy(scores, own, reduction="none")

    def same_label_rows(
        self, scores: Scores, own: Own, labels: Sides, form: SameLabel, what: str, instead: str
    ) -> Costs:
        """Return the cross entropy of each row; ``form`` says how to treat other pairs with the same label."""
        if form == "negative":
            return cross_entropy(scores, own, reduction="none")
        if labels is None:
            raise InputError(
                f"`labels` must be given for the objective {self.name}: it needs {what}. Give labels, or set {instead}."
            )
        alike = labels[0][:, None] == labels[1]
        if form == "positive":
            return cross_entropy(scores, alike.to(scores) / alike.sum(1, keepdim=True), reduction="none")
        others = alike.scatter(1, own[:, None], False)
        return cross_entropy(scores.masked_fill(others, float("-inf")), own, reduction="none")

    def __call__(
        self,
        image: Float[Tensor, "n d"],
        text: Float[Tensor, "n d"] | Float[Tensor, "n k d"],
        labels: Labels | None = None,
        state: nn.Module | None = None,
        *,
        share: tuple[int, int] | None = None,
    ) -> Float[Tensor, ""]:
        """Check the input and return the loss."""
        sides = None if labels is None else labels if isinstance(labels, tuple) else (labels, labels)
        _check(self.name, image, text, sides)
        scored = self.state().to(image.device).requires_grad_(False) if state is None else cast(Temperature, state)
        first, last = share or (0, len(image))
        texts = (text,) if text.ndim == 2 else text.unbind(1)
        with torch.autocast(image.device.type, enabled=False):
            x, *ys = (normalize(precise(side), dim=1) for side in (image, *texts))
            total = x.new_zeros(())
            to_text, to_image = self.weights()
            for y in ys:
                if to_text:
                    total = total + to_text * self._direction(x, y, sides, scored, first, last)
                if to_image:
                    total = total + to_image * self._direction(y, x, sides and sides[::-1], scored, first, last)
        return total / ((last - first) * len(ys))

    def _direction(
        self, rows: Tensor, columns: Tensor, labels: Sides, state: Temperature, first: int, last: int
    ) -> Float[Tensor, ""]:
        """Return the sum of the losses of rows ``first`` to ``last``."""

        def block(first: int, last: int) -> Tensor:
            own = torch.arange(first, last, device=rows.device)
            of = None if labels is None else (labels[0][first:last], labels[1])
            return self.rows(state(rows[first:last] @ columns.T), own, of).sum()

        size = max(1, BLOCK // len(columns))
        if last - first <= size:
            return block(first, last)
        starts = range(first, last, size)
        anew = partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
        return torch.stack([anew(i, min(i + size, last)) for i in starts]).sum()


@dataclass(frozen=True)
class LearntScale(Contrastive):
    """Scores ``exp(theta) · cosine`` with a learnt scale.

    Args:
        temperature: initial temperature (CLIP: 0.07).
        max_scale: largest factor on the cosines (CLIP: 100).
    """

    temperature: SomePart = 0.07
    max_scale: Scale = field(default=100.0, kw_only=True)

    def check(self) -> None:
        if self.temperature * self.max_scale < 1:
            expected = "temperature must be at least 1 / max_scale"
            raise self.refusal("temperature", "max_scale", expected=expected)

    def state(self) -> Temperature:
        return Learnt(1 / self.temperature, self.max_scale)


class RandomBoxes(Contrastive):
    """An objective that also trains the heads of a detector, on random boxes."""

    n_boxes: int
    smallest: float
    level_weight: float


class Regional(Contrastive):
    """An objective with an additional loss between patches and words (:meth:`local`)."""

    parts: ClassVar[Literal["words", "texts"]]
    across: ClassVar[bool] = True
    """Whether words are also compared with regions of other pictures."""
    local_weight: float

    def local(
        self, regions: Regions, words: Words, said: Said | None = None, state: nn.Module | None = None
    ) -> Float[Tensor, ""]:
        """Check the input, and return the loss between regions and words."""
        filled = words.new_ones(words.shape[:2]).bool() if said is None else said
        fits = len(regions) == len(words) and regions.shape[2] == words.shape[2] and filled.shape == words.shape[:2]
        if not fits or not regions.shape[1] or not len(words) or not filled.any(1).all():
            raise InputError(
                f"{self.name} needs, for each picture, regions and at least one word of the same width, got shapes "
                f"{tuple(regions.shape)} (regions), {tuple(words.shape)} (words) and {tuple(filled.shape)} (mask)."
            )
        new = self.state().to(words.device).requires_grad_(False) if state is None else state
        return self.local_loss(regions, words, filled, new)

    @abstractmethod
    def local_loss(self, regions: Regions, words: Words, said: Said, state: nn.Module) -> Float[Tensor, ""]:
        """Return the loss."""


def _check(name: str, image: Tensor, text: Tensor, labels: tuple[Tensor, Tensor] | None) -> None:
    fits = len(image) > 0 and text.ndim in (2, 3) and text.numel() > 0 and len(text) == len(image)
    if not fits or text.shape[-1] != image.shape[1] or any(len(side) != len(image) for side in labels or ()):
        given = f"{tuple(image.shape)}, {tuple(text.shape)}"
        given += "" if labels is None else f", {' and '.join(dict.fromkeys(str(len(side)) for side in labels))}"
        raise InputError(
            f"{name} needs pictures, texts and labels with one row per pair and vectors of the same width, got shapes "
            f"{given}."
        )
