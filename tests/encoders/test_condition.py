"""An encoder listens to an instruction only if it was made to, and under one it is an encoder like any other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import seewhy
from instructed import changed
from seewhy.attributions.base import Attribution
from seewhy.attributions.grad_cam import GradCAM
from seewhy.attributions.hires_cam import HiResCAM
from seewhy.attributions.occlusion import Occlusion
from seewhy.classifiers.base import Classifier
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.errors import InputError, ModelError
from seewhy.heads.head import Head, Target
from seewhy.learning.encoders.adapted import Adaptation, open_adaptation
from seewhy.learning.encoders.heads import PairedHeads
from seewhy.learning.encoders.instructed import ConditionToken, Instructed, Modulation
from seewhy.storage.features import FeatureStore
from tiny import HashedWords, build, class_folders, colours, noise, tiny_cnn
from tiny_transformer import tiny_vit


def vit() -> Encoder:
    return tiny_vit(text=HashedWords(16))


def untouched(on: Encoder, n_layers: int = 1) -> Instructed:
    """As it is before any training."""
    return Instructed.before(on, [("the red",), ("the blue",)], rank=3, n_layers=n_layers)


def read_by_hand(on: Encoder, part: Instructed, instruction: str) -> Tensor:
    """The taught sentences, weighed."""
    taught = on.encode_text(part.taught)
    return (20 * taught @ on.encode_text([instruction])[0]).softmax(0) @ taught


def projected(part: Instructed, pooled: Tensor, c: Tensor, keep: float) -> Tensor:
    own = part.projection
    factors = own.gate.weight @ (8 * c) + own.gate.bias
    seen = (pooled - own.mean) / own.spread @ own.down.weight.T + own.down.bias
    return pooled + keep * own.size * (seen * factors) @ own.up.weight.T


def convolved(on: Encoder, part: Instructed, pixels: Tensor, instruction: str, keep: float) -> tuple[Tensor, Tensor]:
    """FiLM, written out for the two convolutions of the tiny network: features, and the pooled vector."""
    c, layers = read_by_hand(on, part, instruction), part.layers
    assert isinstance(layers, Modulation)
    hidden = torch.tanh(layers.hidden.weight @ (8 * c) + layers.hidden.bias)
    gamma, beta = (layers.film.weight @ hidden + layers.film.bias).chunk(2)
    y = on.trunk[2](on.trunk[:2](pixels))  # type: ignore[index]
    y = (1 + keep * gamma)[:, None, None] * y + (keep * beta * layers.deviation)[:, None, None]
    features = y.tanh()
    return features, projected(part, features.mean((2, 3)), c, keep)


def attended(on: Encoder, part: Instructed, pixels: Tensor, instruction: str, keep: float) -> tuple[Tensor, Tensor]:
    """A token between class and patches of the last block, of whose output the class token is read."""
    c, layers, head = read_by_hand(on, part, instruction), part.layers, on.head
    assert isinstance(layers, ConditionToken)
    tokens = on.trunk(pixels)
    token = (layers.token.weight @ (8 * c) + layers.token.bias).expand(len(tokens), 1, -1)
    out = head.block(torch.cat([tokens[:, :1], token, tokens[:, 1:]], 1))
    read = head.tail(torch.cat([out[:, :1], out[:, 2:]], 1))
    return tokens, projected(part, head(tokens) + keep * (read - head(tokens)), c, keep)


@pytest.mark.parametrize(("make", "by_hand"), [(tiny_cnn, convolved), (vit, attended)], ids=("cnn", "vit"))
@pytest.mark.parametrize("keep", [0.5, 1.0])
def test_an_instruction_changes_what_it_says(make: Any, by_hand: Any, keep: float) -> None:
    on, pixels = make(), noise(3)
    part = changed(on)
    now = Adaptation(on, part, keep).encoder()
    assert torch.equal(now.encode(pixels).pooled, on.encode(pixels).pooled), "without an instruction it is as it was"
    seen = {words: now.encode(pixels, words) for words in ("the red", "the blue")}
    for words, look in seen.items():
        features, pooled = by_hand(on, part, pixels, words, keep)
        torch.testing.assert_close(look.features, features)
        torch.testing.assert_close(look.pooled, pooled)
    red, blue = seen.values()
    assert float((normalize(red.pooled, dim=1) - normalize(blue.pooled, dim=1)).abs().max()) > 0.005
    torch.testing.assert_close(now.encode_image(pixels, "the red"), normalize(on.text.project(red.pooled), dim=1))


def test_before_training_a_modulation_changes_nothing_bit_for_bit() -> None:
    on, pixels = tiny_cnn(), noise(3)
    under, plain = Adaptation(on, untouched(on)).encoder().encode(pixels, "the red"), on.encode(pixels)
    assert torch.equal(under.features, plain.features)
    assert torch.equal(under.pooled, plain.pooled)


@pytest.mark.parametrize("make", [tiny_cnn, vit])
def test_what_is_like_nothing_that_was_taught_changes_nothing_bit_for_bit(make: Any) -> None:
    on, pixels = make(), noise(3)
    part = changed(on)
    part.far.fill_(0.9)
    under, plain = Adaptation(on, part).encoder().encode(pixels, "wholly other"), on.encode(pixels)
    assert torch.equal(under.features, plain.features)
    assert torch.equal(under.pooled, plain.pooled)
    assert not torch.equal(Adaptation(on, part).encoder().encode(pixels, "the red").pooled, plain.pooled)


def test_a_token_that_attention_masks_is_the_plain_network() -> None:
    """The other way to no strength: the block's own mask over the token's column."""
    on = vit()
    head: Any = on.head
    tokens = on.trunk(noise(2))
    joined = torch.cat([tokens[:, :1], torch.randn(2, 1, 16), tokens[:, 1:]], 1)
    mask = torch.zeros(joined.shape[1], joined.shape[1])
    mask[:, 1] = -torch.inf
    out = head.block(joined, attn_mask=mask)
    torch.testing.assert_close(head.tail(torch.cat([out[:, :1], out[:, 2:]], 1)), head(tokens))
    free = head.block(joined)
    assert not torch.allclose(head.tail(torch.cat([free[:, :1], free[:, 2:]], 1)), head(tokens))


def test_how_far_a_sentence_is_trusted() -> None:
    """Not at all as far as other questions are like one another; wholly from half-way between there and 1 on."""
    on = tiny_cnn()
    part = untouched(on)
    assert float(part.far) == pytest.approx(max(0, float(on.encode_text(["the red"]) @ on.encode_text(["the blue"]).T)))
    part.sentences.copy_(torch.eye(8)[:2])
    part.far.fill_(0.5)

    def trust(cosine: float) -> float:
        return float(part.read(torch.tensor([[cosine, 0, (1 - cosine**2) ** 0.5, 0, 0, 0, 0, 0]]))[1])

    assert [trust(cosine) for cosine in (0.0, 0.5, 0.6, 0.75, 1.0)] == pytest.approx([0, 0, 0.4, 1, 1], abs=1e-5)


@pytest.mark.parametrize("make", [tiny_cnn, vit])
def test_under_an_instruction_the_parts_agree_with_the_whole(make: Any) -> None:
    on, pixels = make(), noise(2)
    under = Adaptation(on, changed(on)).encoder().under("the red")
    look = under.encode(pixels)
    torch.testing.assert_close(under.head(under.trunk(pixels)), look.pooled)
    torch.testing.assert_close(under.module(pixels), look.pooled)
    assert not under.is_average
    assert (under.classifier, under.classes, under.takes_condition) == (None, (), False)


def test_many_instructions_at_once_do_not_mix() -> None:
    on, pixels = tiny_cnn(), noise(8)
    now = Adaptation(on, changed(on)).encoder()
    said = ["the red", "the blue"] * 8
    alone = {words: now.encode(pixels, words).pooled for words in said[:2]}
    with ThreadPoolExecutor(4) as pool:
        for words, look in zip(said, pool.map(lambda words: now.encode(pixels, words), said), strict=True):
            assert torch.equal(look.pooled, alone[words])


def test_what_lies_below_is_looked_at_once_for_all_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = tiny_cnn()
    part, store = changed(on), FeatureStore(tmp_path / "features.sqlite")
    now = Adaptation(on, part).encoder()
    files = [*sorted(class_folders(tmp_path / "photos", 1).rglob("*.*"))[:2], tmp_path / "none.png"]
    asked = EncodeRequest(features=lambda index: index == 0)
    alone = list(encode_stream(now.under("the blue"), files, request=asked))
    first = list(encode_stream(now.under("the red"), files, store=store, request=asked))
    monkeypatch.setattr(type(part.below.engine), "__call__", lambda *_: pytest.fail("looked again"))
    again = list(encode_stream(now.under("the blue"), files, store=store, request=asked))
    assert [type(one).__name__ for one in again] == ["Encoded", "Encoded", "Failure"]
    for one, other, red in zip(again[:2], alone, first, strict=False):
        assert isinstance(one, Encoded)
        assert isinstance(other, Encoded)
        assert isinstance(red, Encoded)
        torch.testing.assert_close(one.pooled, other.pooled)
        assert not torch.allclose(one.pooled, red.pooled)
        assert (one.features is None) == (one is again[1])
    assert isinstance(again[0], Encoded)
    assert again[0].features is not None
    torch.testing.assert_close(alone[0].features, again[0].features)  # type: ignore[union-attr]


@pytest.mark.parametrize(("make", "name"), [(tiny_cnn, "cnn"), (vit, "vit")])
def test_saved_and_loaded_by_a_name_that_says_the_instruction(make: Any, name: str, tmp_path: Path) -> None:
    on, pixels = make(), noise(2)
    made = Adaptation(on, changed(on), 0.7, {"asked": ["the red"]})
    folder = made.save(tmp_path / "enc")
    again = open_adaptation(folder, base=make())
    taught = ["the red", "the blue"]
    assert again.trained.facts() == {"form": "instructed_layers", "rank": 3, "n_layers": 1, "taught": taught}
    assert again.provenance == {"asked": ["the red"]}
    named, ours = seewhy.encoder(f"{folder}#the red", base=make()), made.encoder().under("the red")
    assert named.name == f"adapted:{folder}#the red"
    assert named.fingerprint == ours.fingerprint
    assert len({e.fingerprint for e in (on, made.encoder(), ours, made.encoder().under("the blue"))}) == 4
    assert torch.equal(named.encode(pixels).pooled, ours.encode(pixels).pooled)


def rewritten(folder: Path, before: str, after: str) -> None:
    card = folder / "encoder.json"
    text = card.read_text("utf-8").rstrip()
    assert before in text
    card.write_text(text.replace(before, after), "utf-8")


def test_a_card_with_sizes_that_are_none_is_damaged(tmp_path: Path) -> None:
    on = tiny_cnn()
    folder = Adaptation(on, changed(on)).save(tmp_path / "enc")
    rewritten(folder, '"rank": 3', '"rank": 0')
    with pytest.raises(ModelError, match=r"is damaged \(its rank, n_layers are \[0, 1\]\)"):
        open_adaptation(folder, base=on)


def test_heads_behind_one_that_listens_listen_too() -> None:
    on, pixels = tiny_cnn(), noise(2)
    listening = Adaptation(on, changed(on)).encoder()
    behind = Adaptation(listening, PairedHeads.before(listening), keep=0.0).encoder()
    seen = behind.encode_image(pixels, "the red")[:, :8]
    torch.testing.assert_close(seen, listening.encode_image(pixels, "the red"))


def two_lights() -> tuple[Encoder, Instructed]:
    """Red light on one side and green on the other are seen by one channel each; an instruction puts one out."""
    with torch.random.fork_rng():
        trunk = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 4, 4, bias=False), nn.ReLU())
    with torch.no_grad():
        trunk[0].weight.copy_(torch.eye(3)[:, :, None, None])
        trunk[1].weight.copy_(torch.eye(3)[:, :, None, None].expand(-1, -1, 4, 4) / 16)
    on = build(trunk, GlobalAverage(), Layout(), 3, classifier=nn.Linear(3, 2))
    part = untouched(on)
    part.far.fill_(0.0)
    layers = part.layers
    assert isinstance(layers, Modulation)
    with torch.no_grad():
        red, green = 8 * on.encode_text(["the red", "the blue"])
        layers.hidden.weight.zero_()
        layers.hidden.bias.zero_()
        layers.hidden.weight[:2] = 30 * torch.linalg.pinv(torch.stack([red, green])).T
        layers.film.weight[1, 0] = layers.film.weight[0, 1] = -1.0  # under the first the second channel goes out
    return on, part


@pytest.mark.parametrize("method", [GradCAM(), HiResCAM(), Occlusion(), GradCAM(layer="0")], ids=str)
def test_the_heat_map_follows_the_instruction(method: Attribution) -> None:
    """Planted evidence: red light on the left, green light on the right; a class of either."""
    on, part = two_lights()
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[0, 0, 8:16, 4:12], pixels[0, 1, 8:16, 20:28] = 1.0, 1.0
    head = Head(nn.Identity(), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), torch.zeros(2))
    for words, on_left in (("the red", 1.0), ("the blue", 0.0)):
        encoder = Adaptation(on, part).encoder().under(words)
        model = Classifier("test", {}, encoder, ("lit", "dark"), head)
        heat = method(model, encoder.encode(pixels), Target(torch.tensor([0])))[0].clamp(min=0)
        assert float(heat[:, : heat.shape[1] // 2].sum() / heat.sum()) == pytest.approx(on_left, abs=0.02)


def test_an_instruction_that_nobody_hears_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        colours().encode(noise(1), "the colour")
    told = (
        "The encoder '{}' takes no instruction, got 'the colour'. Remove it, or use an encoder that was trained with "
        "instructions."
    )
    assert str(caught.value) == told.format("tiny")
    with pytest.raises(InputError) as caught:
        seewhy.encoder("lite0#the colour")
    assert str(caught.value) == told.format("lite0")
    with pytest.raises(InputError) as caught:
        Adaptation(tiny_cnn(), changed(tiny_cnn())).encoder().encode(noise(1), " ")
    assert str(caught.value) == ("The instruction must be words such as 'the colour', got an empty text.")
