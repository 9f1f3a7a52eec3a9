"""An encoder listens to an instruction only if it was made to, and under one it is an encoder like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import seewhy
from seewhy.encoders.base import Encoder
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.errors import InputError, ModelError
from seewhy.learning.encoders.adapted import Adaptation, open_adaptation
from seewhy.learning.encoders.heads import InstructedHead, PairedHeads
from seewhy.storage.features import FeatureStore
from tiny import class_folders, colours, noise, tiny_cnn


def random_head(on: Encoder) -> InstructedHead:
    """As if it were trained."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        head = InstructedHead.before(on, on.encode(noise(4)).pooled, rank=3)
        nn.init.normal_(head.up.weight)
    return head.requires_grad_(False)


def by_hand(on: Encoder, head: InstructedHead, pooled: Tensor, instruction: str, keep: float) -> Tensor:
    factors = head.gate.weight @ (8 * on.encode_text([instruction])[0]) + head.gate.bias
    seen = (pooled - head.mean) / head.spread @ head.down.weight.T + head.down.bias
    return pooled + keep * head.size * (seen * factors) @ head.up.weight.T


def test_an_instruction_adds_what_it_says() -> None:
    on, pixels = tiny_cnn(), noise(3)
    head = random_head(on)
    now = Adaptation(on, head, 0.5).encoder()
    plain = on.encode(pixels)
    assert torch.equal(now.encode(pixels).pooled, plain.pooled)
    red, blue = (now.encode(pixels, words) for words in ("the red", "the blue"))
    torch.testing.assert_close(red.pooled, by_hand(on, head, plain.pooled, "the red", 0.5))
    torch.testing.assert_close(blue.pooled, by_hand(on, head, plain.pooled, "the blue", 0.5))
    assert torch.equal(red.features, plain.features)
    assert float((normalize(red.pooled, dim=1) - normalize(blue.pooled, dim=1)).abs().max()) > 0.05
    torch.testing.assert_close(now.encode_image(pixels, "the red"), normalize(on.text.project(red.pooled), dim=1))


def test_before_training_an_instruction_changes_nothing() -> None:
    on, pixels = tiny_cnn(), noise(3)
    new = Adaptation(on, InstructedHead.before(on, on.encode(pixels).pooled)).encoder()
    assert torch.equal(new.encode(pixels, "the red").pooled, on.encode(pixels).pooled)


def test_under_an_instruction_the_parts_agree_with_the_whole() -> None:
    on, pixels = tiny_cnn(), noise(2)
    under = Adaptation(on, random_head(on)).encoder().under("the red")
    look = under.encode(pixels)
    torch.testing.assert_close(under.head(under.trunk(pixels)), look.pooled)
    torch.testing.assert_close(under.module(pixels), look.pooled)
    assert not under.is_average
    assert (under.classifier, under.classes, under.takes_condition) == (None, (), False)


def test_looks_of_the_base_are_found_again_and_vectors_are_those_under_the_instruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = tiny_cnn()
    head, store = random_head(on), FeatureStore(tmp_path / "features.sqlite")
    now = Adaptation(on, head).encoder()
    files = [*sorted(class_folders(tmp_path / "photos", 1).rglob("*.*"))[:2], tmp_path / "none.png"]
    first = [one for one in encode_stream(on, files, store=store) if isinstance(one, Encoded)]
    monkeypatch.setattr(type(on.engine), "__call__", lambda *_: pytest.fail("looked again"))
    again = list(encode_stream(now.under("the red"), files, store=store))
    assert [type(one).__name__ for one in again] == ["Encoded", "Encoded", "Failure"]
    for plain, under in zip(first, again, strict=False):
        assert isinstance(under, Encoded)
        torch.testing.assert_close(under.pooled, by_hand(on, head, plain.pooled, "the red", 1.0))


def test_saved_and_loaded_by_a_name_that_says_the_instruction(tmp_path: Path) -> None:
    on, pixels = tiny_cnn(), noise(2)
    made = Adaptation(on, random_head(on), 0.7, {"asked": ["the red"]})
    folder = made.save(tmp_path / "enc")
    again = open_adaptation(folder, base=tiny_cnn())
    assert again.trained.facts() == {"form": "instructed", "width": 8, "sentence_width": 8, "rank": 3, "taught": []}
    assert again.provenance == {"asked": ["the red"]}
    named, ours = seewhy.encoder(f"{folder}#the red", base=tiny_cnn()), made.encoder().under("the red")
    assert named.name == f"adapted:{folder}#the red"
    assert named.fingerprint == ours.fingerprint
    assert len({e.fingerprint for e in (on, made.encoder(), ours, made.encoder().under("the blue"))}) == 4
    assert torch.equal(named.encode(pixels).pooled, ours.encode(pixels).pooled)


def test_a_card_with_sizes_that_are_none_is_damaged(tmp_path: Path) -> None:
    on = tiny_cnn()
    folder = Adaptation(on, random_head(on)).save(tmp_path / "enc")
    card = folder / "encoder.json"
    card.write_text(card.read_text("utf-8").rstrip().replace('"rank": 3', '"rank": 0'), "utf-8")
    with pytest.raises(ModelError, match=r"is damaged \(its width, sentence_width, rank are \[8, 8, 0\]\)"):
        open_adaptation(folder, base=on)


def test_heads_behind_one_that_listens_listen_too() -> None:
    on, pixels = tiny_cnn(), noise(2)
    listening = Adaptation(on, random_head(on)).encoder()
    behind = Adaptation(listening, PairedHeads.before(listening), keep=0.0).encoder()
    seen = behind.encode_image(pixels, "the red")[:, :8]
    torch.testing.assert_close(seen, listening.encode_image(pixels, "the red"))


def test_an_instruction_that_nobody_hears_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        colours().encode(noise(1), "the colour")
    told = (
        "The instruction 'the colour' was given to '{}', which sees a picture in one way only. "
        "An encoder that was trained with instructions was expected. Leave the instruction out."
    )
    assert str(caught.value) == told.format("tiny")
    with pytest.raises(InputError) as caught:
        seewhy.encoder("lite0#the colour")
    assert str(caught.value) == told.format("lite0")
    with pytest.raises(InputError) as caught:
        Adaptation(tiny_cnn(), random_head(tiny_cnn())).encoder().encode(noise(1), " ")
    assert str(caught.value) == (
        "The instruction is empty. Words such as 'the colour' were expected. Write some, or leave it out."
    )
