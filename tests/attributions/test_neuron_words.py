"""Neurons by name: a word planted on a channel must name it, and nothing else may."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seewhy.attributions.neuron_words import Dictionary, dictionary, important_channels
from seewhy.classifiers.unfitted import Pretrained
from seewhy.descriptions.base import Descriptions, WordBank
from seewhy.encoders.base import Encoder, EncoderOutput, GlobalAverage, Layout
from seewhy.errors import InputError, ModelError
from seewhy.heads.head import Head, Target
from seewhy.heads.normalise import Normalise
from tiny import CLASSES, HashedWords, build, tiny_cnn, tiny_tokens

WIDTH = 64
PLANTED = {"stripes": 5, "feathers": 40}


class Model:
    """An encoder with one head on it."""

    def __init__(self, encoder: Encoder, weight: Tensor) -> None:
        self.encoder = encoder
        self.head = Head(Normalise(), weight)


def axis(channel: int, noise: float = 0.0, seed: int = 0) -> Tensor:
    vector = noise * torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    vector[channel] += 1
    return vector


def wide(classifier: nn.Linear | None = None) -> Encoder:
    tower = HashedWords(WIDTH, {word: axis(channel, 0.02, channel) for word, channel in PLANTED.items()})
    trunk = nn.Conv2d(3, WIDTH, 8, 8)
    return build(trunk, GlobalAverage(), Layout(), width=WIDTH, text=tower, classifier=classifier)


def at(_picture: int, cell: tuple[int, int]) -> tuple[int, int, int, int]:
    return (*cell, *cell)


def test_a_description_planted_on_a_channel_names_it() -> None:
    encoder = wide()
    texts = {"zebra": ["stripes", "a long neck", "hooves"], "bird": ["feathers", "a beak", "two legs"]}
    bank = WordBank.build(encoder, Descriptions.of(texts), with_names=False)
    words = dictionary(Model(encoder, torch.zeros(2, WIDTH)), WIDTH, (bank.texts, bank.vectors))
    named = {channel: words.name(channel)[0] for channel in range(WIDTH)}
    assert {word: named[channel] for word, channel in PLANTED.items()} == {word: word for word in PLANTED}
    # One channel in twenty may have a name by chance.
    assert sum(name is not None for name in named.values()) <= len(PLANTED) + 6


def test_a_class_that_reads_one_channel_names_it() -> None:
    layer = nn.Linear(WIDTH, len(CLASSES))
    layer.weight.data = torch.stack([axis(7 * k, 0.05, k) + 1.0 for k in range(len(CLASSES))])
    words = dictionary(Model(wide(layer), layer.weight), WIDTH)
    assert [words.name(7 * k)[0] for k in range(len(CLASSES))] == list(CLASSES)
    assert words.name(60)[0] is None


def test_random_directions_name_one_channel_in_twenty() -> None:
    directions = torch.randn(200, 4000, generator=torch.Generator().manual_seed(0))
    words = Dictionary.of([str(i) for i in range(200)], directions)
    share = sum(words.name(channel)[0] is not None for channel in range(4000)) / 4000
    assert share == pytest.approx(0.05, abs=0.012)


def test_names_do_not_change_when_every_word_leans_more_on_a_channel_or_more_strongly() -> None:
    directions = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(1))
    directions[3] = 20 * axis(9)
    texts = [str(i) for i in range(20)]
    plain = Dictionary.of(texts, directions)
    moved = Dictionary.of(texts, 5 * (directions + directions[7]))
    torch.testing.assert_close(plain.lean, moved.lean, atol=1e-4, rtol=1e-4)
    assert plain.name(9)[0] == "3"


def test_shares_are_the_formula_and_add_up_to_the_logit() -> None:
    encoder = wide()
    weight = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(2))
    model = Model(encoder, weight)
    features = torch.rand(2, WIDTH, 4, 4, generator=torch.Generator().manual_seed(3))
    look, target = EncoderOutput(features, features.mean((2, 3))), Target(torch.tensor([2, 0]))
    words = Dictionary.of(["a", "b"], torch.randn(2, WIDTH))
    found = important_channels(model, look, target, words, WIDTH, at)
    for i, k in enumerate((2, 0)):
        products = (weight[k] - weight.mean(0)) * look.pooled[i]
        positive = products.clamp(min=0).sum()
        got = {c.channel: c.share for c in found[i]}
        assert got == pytest.approx({c: float(products[c] / positive) for c in range(WIDTH)}, abs=1e-5)
        lead = model.head(look.pooled)[i, k] - model.head(look.pooled)[i].mean()
        assert sum(got.values()) * float(positive) == pytest.approx(float(lead), abs=1e-4)
        assert [c.share for c in found[i][:5]] == sorted((c.share for c in found[i]), reverse=True)[:5]
        channel = found[i][0]
        row, column, *_ = channel.box
        assert features[i, channel.channel, row, column] == features[i, channel.channel].max()


def test_another_function_of_the_logits_has_its_gradient() -> None:
    encoder, weight = wide(), torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(2))
    features = torch.rand(1, WIDTH, 4, 4)
    look = EncoderOutput(features, features.mean((2, 3)))
    words = Dictionary.of(["a", "b"], torch.randn(2, WIDTH))
    (found,) = important_channels(Model(encoder, weight), look, lambda logits: logits[:, 1], words, WIDTH, at)
    products = weight[1] * look.pooled[0]
    shares = products / products.clamp(min=0).sum()
    assert {c.channel: c.share for c in found} == pytest.approx(dict(enumerate(shares.tolist())), abs=1e-5)


def test_the_card_and_the_json_list_them() -> None:
    import numpy as np

    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    classifier = Pretrained().build(tiny_cnn())
    why = classifier.explain(picture, neurons=2, measure=False)
    listed = why.to_json()["where"]["neurons"]
    assert len(listed) == len(why.where.neurons) == 4
    assert [row["share"] > 0 for row in listed] == [True, True, False, False]
    assert set(listed[0]) == {"channel", "share", "name", "strength", "box"}
    assert f"neuron {listed[0]['channel']}" in why.to_html().lower()
    assert "neurons" not in classifier.explain(picture, measure=False).to_json()["where"]


def test_where_there_is_nothing_to_name_it_is_said() -> None:
    tokens = tiny_tokens()
    with pytest.raises(ModelError, match=r"^Naming the neurons of 'tiny' needs global average pooling"):
        dictionary(Model(tokens, torch.zeros(4, 8)), 8)
    with pytest.raises(InputError, match=r"^Naming channels needs .* got 1 words and directions \(1, 8\)\."):
        Dictionary.of(["alone"], torch.ones(1, 8))
    model = Model(wide(), torch.ones(2, WIDTH))
    look = EncoderOutput(torch.ones(1, WIDTH, 2, 2), torch.ones(1, WIDTH))
    with pytest.raises(InputError, match=r"^The number of neurons must be at least 1, got 0\."):
        important_channels(
            model, look, Target(torch.tensor([0])), Dictionary.of(["a", "b"], torch.rand(2, WIDTH)), 0, at
        )
    bare = wide()
    bare.classifier = None
    with pytest.raises(ModelError, match=r"has no class names for its neurons\."):
        dictionary(Model(bare, torch.ones(2, WIDTH)), WIDTH)
