"""An encoder's picture half after training: where it is between before and after, and what it has of its start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import seewhy
from seewhy.encoders.base import Encoder
from seewhy.encoders.module import from_module
from seewhy.encoders.split import example_pixels
from seewhy.learning.encoders.image_copy import ImageCopy
from seewhy.learning.encoders.projection import Projection
from tiny import TRANSFORM, noise, tiny_cnn, tiny_tokens


def moved() -> ImageCopy:
    tower = ImageCopy.before(tiny_cnn())
    for p in tower.trunk.parameters():
        p.data += 0.25
    return tower


def test_half_of_the_way_weights_are_half_of_the_way() -> None:
    on = tiny_cnn()
    whole, half, none = (moved().grown(on, "x", keep) for keep in (1.0, 0.5, 0.0))
    for before, middle, after in zip(*(one.trunk.parameters() for one in (on, half, whole)), strict=True):
        torch.testing.assert_close(middle, (before + after) / 2)
    torch.testing.assert_close(none.encode(noise(2)).pooled, on.encode(noise(2)).pooled)
    assert len({one.fingerprint for one in (on, whole, half, none)}) == 4


def test_it_sees_pictures_as_its_start_does_and_has_no_words() -> None:
    on = tiny_cnn()
    grown = moved().grown(on, "mine", 1.0)
    assert (grown.name, grown.base, grown.transform, grown.layout) == ("mine", on, on.transform, on.layout)
    assert grown.engine_asked == on.engine_asked
    assert not grown.has_text


def test_only_what_changed_is_kept_and_all_of_what_stands_behind() -> None:
    on, tower = tiny_cnn(), moved()
    names = [f"trunk.{name}" for name, _ in on.trunk.named_parameters()]
    assert sorted(tower.delta(on)) == sorted(names)
    assert ImageCopy.before(on).delta(on) == {}
    how = Projection("linear", 3)
    tower.behind, tower.head = how.build(8), how.facts(8)
    assert {*tower.delta(on)} == {*names, "behind.weight", "behind.bias"}
    assert tower.facts() == {"form": "pictures", "head": tower.head}
    again = ImageCopy.restored(on, tower.facts(), tower.delta(on))
    pooled = [one.grown(on, "x", 1.0).encode(noise(2)).pooled for one in (tower, again)]
    torch.testing.assert_close(*pooled)
    assert pooled[0].shape == (2, 3)
    assert all(not p.requires_grad for p in again.behind.parameters())  # type: ignore[union-attr]


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "convolutions": tiny_cnn,
    "tokens": tiny_tokens,
    "lite0": lambda: seewhy.encoder("lite0"),
    "timm": lambda: from_module(pytest.importorskip("timm").create_model("resnet10t").eval(), transform=TRANSFORM),
    "torchvision": lambda: from_module(
        pytest.importorskip("torchvision").models.mobilenet_v3_small().eval(), transform=TRANSFORM
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_copy_of_any_encoder_learns_is_saved_and_comes_back(name: str) -> None:
    torch.manual_seed(0)
    on = ENCODERS[name]()
    pixels, before = (
        example_pixels(on.transform.input_size, 2),
        {n: t.clone() for n, t in on.trunk.state_dict().items()},
    )
    image = ImageCopy.before(on).learn(on, "all")
    trained = {n for n, p in image.named_parameters() if p.requires_grad}
    torch.testing.assert_close(image(pixels), on.head(on.trunk(pixels)))
    image(pixels).square().sum().backward()
    with torch.no_grad():
        for p in image.parameters():
            if p.requires_grad:
                p -= 1e-3 * (1 + p)
    image.requires_grad_(False)
    assert {*image.delta(on)} == trained
    assert all(torch.equal(t, before[n]) for n, t in on.trunk.state_dict().items())
    again = ImageCopy.restored(on, image.facts(), image.delta(on))
    assert torch.equal(again(pixels), image(pixels))
    grown = again.with_text(on)
    assert (grown.has_text, grown.base) == (on.has_text, on)
    torch.testing.assert_close(grown.head(grown.trunk(pixels)), image(pixels))
