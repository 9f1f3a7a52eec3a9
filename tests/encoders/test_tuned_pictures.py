"""An encoder's picture half after training: where it is between before and after, and what it has of its start."""

from __future__ import annotations

import torch

from seewhy.learning.encoders.projection import Projection
from seewhy.learning.encoders.towers import TunedPictures
from tiny import noise, tiny_cnn


def moved() -> TunedPictures:
    tower = TunedPictures.before(tiny_cnn())
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
    assert TunedPictures.before(on).delta(on) == {}
    how = Projection("linear", 3)
    tower.behind, tower.head = how.build(8), how.facts(8)
    assert {*tower.delta(on)} == {*names, "behind.weight", "behind.bias"}
    assert tower.facts() == {"form": "pictures", "head": tower.head}
    again = TunedPictures.restored(on, tower.facts(), tower.delta(on))
    pooled = [one.grown(on, "x", 1.0).encode(noise(2)).pooled for one in (tower, again)]
    torch.testing.assert_close(*pooled)
    assert pooled[0].shape == (2, 3)
    assert all(not p.requires_grad for p in again.behind.parameters())  # type: ignore[union-attr]
