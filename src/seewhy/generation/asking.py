"""What a person may ask for, as a condition, a start and a hole; what does not fit is said in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifiers.base import Classifier
from ..encoders.base import Encoder
from ..errors import DataError, InputError
from ..pictures.images import read_picture
from ..pictures.sources import One, name_of
from ..types import Transform
from .conditions import Condition, Like, OfClass, OfNeuron, OfText
from .generator import Generator
from .reader import Reader, as_read
from .sampler import Hole


@dataclass(frozen=True)
class Question:
    """What the pictures are to show: one of the first three, or none where a picture is given.

    Args:
        label: a class of the model, by name or number.
        text: a sentence.
        neuron: a unit of the model's pooled features.
        like: a picture; beside one of the first three chains start at it, alone it is what is climbed.
        inpaint: a picture with a hole.
        mask: a picture, white where the hole is.
    """

    label: str | int | None = None
    text: str | None = None
    neuron: int | None = None
    like: One | None = None
    inpaint: One | None = None
    mask: One | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("label", "text", "neuron") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(
                f"{len(given)} things were asked for at once: {', '.join(given)}. One class, one text or one neuron "
                "was expected. Drop the others."
            )
        if not given and self.like is None and self.inpaint is None:
            raise InputError(
                "Nothing was asked for. A class, a text, a neuron, a picture to be like or one to fill in was "
                "expected. Name one, for example: --class wren"
            )
        if (self.inpaint is None) != (self.mask is None):
            raise InputError(
                "A picture to fill in and the mask of its hole were expected together, and one of them was given. "
                "Give both: --inpaint photo.jpg --mask mask.png"
            )
        if self.like is not None and self.inpaint is not None:
            raise InputError("--like and --inpaint were both given. One picture to start at was expected. Drop one.")

    def condition(self, model: Classifier | Encoder) -> Condition | None:
        """What is climbed; nothing where a hole is filled by the prior alone."""
        on = model if isinstance(model, Encoder) else model.encoder
        if self.label is not None:
            if isinstance(model, Encoder):
                raise InputError(
                    f"The class {self.label!r} was asked of the encoder {model.name!r}. A classifier was expected. "
                    "Give one, or seewhy.pretrained(encoder)."
                )
            return OfClass(model, self.label)
        if self.text is not None:
            return OfText(on, self.text)
        if self.neuron is not None:
            return OfNeuron(on, self.neuron, n_units(on))
        if self.like is not None:
            return Like(on, as_read(self.like, on, min(on.transform.input_size)), name_of(self.like, 1))
        return None

    def start(self, generator: Generator) -> Float[Tensor, "1 3 s s"] | None:
        """The picture to start at, if one is given beside something to climb."""
        if self.like is None or (self.label is None and self.text is None and self.neuron is None):
            return None
        return as_read(self.like, generator.read.encoder, generator.side)

    def hole(self, generator: Generator) -> Hole | None:
        """What is filled in."""
        if self.inpaint is None or self.mask is None:
            return None
        encoder, side = generator.read.encoder, generator.side
        large = _mask_of(self.inpaint, self.mask)
        picture = as_read(self.inpaint, encoder, side)
        inside = (as_read(self.mask, encoder, side).mean(1, keepdim=True) > 0.5).float()
        if not 0 < large < 1 or not 0 < float(inside.mean()) < 1:
            raise DataError(
                f"{name_of(self.mask, 1)} marks {large:.0%} of the picture as hole. A part of it, white on black, was "
                "expected, and one that is seen where the picture is cut for the network. Draw the mask anew."
            )
        return Hole(picture, inside)


def _mask_of(picture: One, mask: One) -> float:
    """How much of it is white."""
    plain = Transform((64, 64), (64, 64), "bilinear", (0.5,) * 3, (0.5,) * 3)
    own, marks = read_picture(picture, plain), read_picture(mask, plain)
    if own.original_size != marks.original_size:
        (w, h), (width, height) = own.original_size, marks.original_size
        raise DataError(
            f"{name_of(mask, 1)} is {width} by {height} pixels and {name_of(picture, 1)} is {w} by {h}. A mask of the "
            "picture's own size, white where the hole is, was expected. Make it that size."
        )
    return float((marks.pixels.mean(2) > 127).mean())


def n_units(encoder: Encoder) -> int:
    """Of its pooled features."""
    with torch.no_grad():
        return Reader(encoder)(torch.zeros(1, 3, *encoder.transform.input_size)).shape[1]
