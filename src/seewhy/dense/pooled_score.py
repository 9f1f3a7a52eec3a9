"""The score of a part of a picture, from its cells: a layer on their mean, or a network; so it can be explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ..encoders.base import Encoder, TextTower
from ..errors import InputError
from ..heads.head import Head
from .reader import Reader

if TYPE_CHECKING:
    from .detections import Detections

NOTHING = "nothing"
"""What a box is called that is of no class."""
Boxes = Float[Tensor, "n 4"]
Logits = Float[Tensor, "b k"]


@dataclass(frozen=True, eq=False)
class PooledScore:
    """``logits = head(mean over the part of (cells - centred * their mean over the picture))``.

    Where a box is read in several pieces, the means over these, one after the other, take the mean's place. Where a
    network reads it (``reads``), the logits are that network's, and no map but one that changes pixels explains them.

    Attributes:
        reader: what looks at pictures in windows.
        method: registered name of what gives the score.
        classes: names, in the order of the head's rows.
        cells: the encoder and its features → vectors of cells.
        head: their mean → logits; the layer by which the part was named.
        words: how descriptions are compared with the mean: it is among the words (``"joint"``), it is the encoder's own
            (``"own"``), or not at all.
        centred: part of the picture's own mean that is taken off each cell.
        pieces: a box and the size of the map, in cells → the boxes over which means are taken; left out, the box.
        head_of: the same → the head for this very box, where it depends on that; left out, ``head``.
        reads: the picture's own cells and a box, as parts of its sides → a function from cells of changed copies to
            logits of that box, which ``head`` leaves as they are.
        parameters: of the method.
        trained_on: one line for who asks.
    """

    reader: Reader
    method: str
    classes: tuple[str, ...]
    cells: Callable[[Encoder, Tensor], Float[Tensor, "b d h w"]] = field(repr=False)
    head: Head = field(repr=False)
    words: Literal["joint", "own"] | None = None
    centred: float = 0.0
    pieces: Callable[[Boxes, tuple[int, int]], list[Boxes]] | None = field(default=None, repr=False)
    head_of: Callable[[Boxes, tuple[int, int]], Head] | None = field(default=None, repr=False)
    reads: Callable[[Tensor, Boxes], Callable[[Tensor], Logits]] | None = field(default=None, repr=False)
    parameters: dict[str, Any] = field(default_factory=dict, repr=False)
    trained_on: str = "nothing but the names of the classes"

    def text(self, shift: Callable[[], Tensor]) -> Callable[[], TextTower] | None:
        """The words half that goes with the mean; ``None`` where there is none."""
        base = self.reader.base
        if not base.has_text or self.words is None or (self.words == "own" and not base.is_average):
            return None
        return (lambda: AmongWords(base.text, shift())) if self.words == "joint" else (lambda: base.text)


@runtime_checkable
class PoolsBoxes(Protocol):
    """A detector whose score of a box comes from the cells of one look."""

    def detect(self, picture: object, /) -> Detections: ...

    def pooled(self) -> PooledScore:
        """That layer, and what it reads."""
        ...


def cannot_pool(name: str) -> InputError:
    """What to say of a detector that scores boxes in another way."""
    return InputError(
        f"The boxes of {name} were to be explained, and it does not score a box by the cells under it. A detector that "
        "reads its encoder's map was expected. Choose word_regions, or one of seewhy fit-detector."
    )


class AmongWords:
    """The words half of an encoder whose pooled vectors are among the words already, but for what was taken off.

    Args:
        of: the words half.
        shift: what is put back.
    """

    def __init__(self, of: TextTower, shift: Float[Tensor, " d"] | float = 0.0) -> None:
        self.of, self.shift = of, shift
        self.fingerprint, self.logit_scale, self.templates = of.fingerprint, of.logit_scale, of.templates

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return self.of.encode_text(texts)

    def project(self, pooled: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return pooled + self.shift


def rest_names(names: Sequence[str], rest: Sequence[str]) -> tuple[str, ...]:
    """Names of what is no object, apart from those that are looked for.

    >>> rest_names(("stamp", "background"), ("background", "table"))
    ('background (the rest)', 'table')
    """
    return tuple(f"{one} (the rest)" if one in names else one for one in rest)
