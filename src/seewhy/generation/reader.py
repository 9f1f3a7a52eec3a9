"""How a network of ours reads a made picture: as it would the file, and differentiably."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from ..encoders.base import Encoder
from ..errors import ModelError
from ..pictures.images import read_picture
from ..pictures.sources import One
from ..types import Transform


@dataclass(frozen=True, eq=False)
class Reader:
    """Pictures of 0…1 of any side → an encoder's features, with gradients back to the pictures.

    Args:
        encoder: what reads; it stays as it is.
        side: that pictures are brought to; left out, the encoder's own.
    """

    encoder: Encoder
    side: int | None = None

    def __post_init__(self) -> None:
        if self.side is None:
            return
        try:
            with torch.no_grad():
                found = self(torch.zeros(1, 3, self.side, self.side))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ModelError(
                f"The encoder {self.encoder.name!r} cannot read pictures of {self.side} pixels. Its own "
                f"{self.encoder.transform.input_size[1]}, or a side that it takes, was expected. Leave it out."
            ) from error
        if not found.isfinite().all():
            raise ModelError(
                f"The encoder {self.encoder.name!r} gives no finite numbers at {self.side} pixels. A side that it "
                "takes was expected. Leave it out."
            )

    def pixels(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 H W"]:
        """At the side that is read, and normalised as the encoder was trained."""
        own = self.encoder.transform
        size = own.input_size if self.side is None else (self.side, self.side)
        if pictures.shape[2:] != size:
            pictures = interpolate(pictures, size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (own.mean, own.std))
        return (pictures - mean) / std

    def features(self, pictures: Float[Tensor, "b 3 h w"]) -> Tensor:
        """As the trunk arranges them."""
        found: Tensor = self.encoder.trunk(self.pixels(pictures))
        return found

    def __call__(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """What is pooled."""
        pooled: Tensor = self.encoder.head(self.features(pictures))
        return pooled


def shown_at(encoder: Encoder, side: int) -> Transform:
    """Cuts pictures as the encoder does, to another side."""
    own = encoder.transform
    resize = round(own.resize * side / min(own.input_size)) if isinstance(own.resize, int) else (side, side)
    return replace(own, input_size=(side, side), resize=resize)


def as_read(picture: One, encoder: Encoder, side: int) -> Float[Tensor, "1 3 s s"]:
    """A picture of a person's, as a generator would have to make it."""
    return unit(torch.from_numpy(read_picture(picture, shown_at(encoder, side)).pixels.copy())[None])


def unit(pictures: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Bytes → 0…1, channels second."""
    return pictures.permute(0, 3, 1, 2).float() / 255


def bytes_of(pictures: Float[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b h w 3"]:
    """What a person is shown."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def batched(read: Reader, pictures: Float[Tensor, "n 3 h w"], size: int = 64) -> Float[Tensor, "n d"]:
    """Pooled features of many, without gradients."""
    with torch.no_grad():
        return torch.cat([read(part) for part in pictures.split(size)])
