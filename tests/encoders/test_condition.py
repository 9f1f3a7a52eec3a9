"""An encoder listens to an instruction only if it was made to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seewhy.encoders.base import Encoder, EncoderOutput, GlobalAverage, Layout
from seewhy.errors import InputError
from tiny import TRANSFORM, Channels, colours, noise


def listening() -> Encoder:
    """Pools red under the instruction "the red", else the mean of the colour."""

    def conditioned(pixels: Tensor, condition: str) -> EncoderOutput:
        pooled = pixels.mean((2, 3))
        return EncoderOutput(
            Channels()(pixels), pooled if condition != "the red" else pooled[:, :1].expand(-1, 3), pixels
        )

    return Encoder(
        name="listening", transform=TRANSFORM, trunk=Channels, head=GlobalAverage(), layout=Layout(),
        fingerprint="listening", engine="torch", conditioned=conditioned, text=lambda: colours().text,
    )  # fmt: skip


def test_an_instruction_changes_what_is_pooled() -> None:
    on, pixels = listening(), noise(3)
    plain = on.encode(pixels)
    torch.testing.assert_close(plain.pooled, pixels.mean((2, 3)))
    red = on.encode(pixels, "the red")
    torch.testing.assert_close(red.pooled, plain.pooled[:, :1].expand(-1, 3))
    torch.testing.assert_close(
        on.encode_image(pixels, "the red"), on.encode_image(red.pooled[..., None, None].expand_as(pixels))
    )
    assert not torch.allclose(on.encode_image(pixels, "the red"), on.encode_image(pixels))
    assert on.takes_condition
    assert not colours().takes_condition


def test_an_instruction_that_nobody_hears_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        colours().encode(noise(1), "the colour")
    assert str(caught.value) == (
        "The instruction 'the colour' was given to 'tiny', which sees a picture in one way only. "
        "An encoder that was trained with instructions was expected. Leave the instruction out."
    )
    with pytest.raises(InputError) as caught:
        listening().encode(noise(1), " ")
    assert str(caught.value) == (
        "The instruction is empty. Words such as 'the colour' were expected. Write some, or leave it out."
    )
