"""GLoRIA's attention as a map: the authors' numbers, planted words, which words count, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.classifiers.unfitted import ZeroShot
from seewhy.encoders.base import EncoderOutput, GlobalAverage, Layout
from seewhy.encoders.text_tokens import ClipText, Sentence, TokenEmbeddings, TokenVectors
from seewhy.errors import InputError
from seewhy.heads.head import Target
from seewhy.learning.gloria_attention import GLoRIAAttention, named_words
from tiny import SIDE, Channels, build, noise, tiny_cnn, tiny_tokens
from tiny_words import tiny_pair

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "gloria_attention.json").read_text("utf-8"))
GREY = 128


class Table(nn.Module):
    """Words whose vectors are given, between an opening and a closing mark that have the first one's."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def embed(self, ids: Tensor, mask: Tensor) -> TokenEmbeddings:
        return TokenEmbeddings.of(self.rows[ids], ids, mask.sum(1), Sentence(64, 1, 1))

    def read(self, embeddings: TokenEmbeddings) -> TokenVectors:
        return TokenVectors(embeddings.vectors, embeddings.words, embeddings.vectors.mean(1))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.read(self.embed(ids, mask)).pooled


def tower(vocabulary: dict[str, list[float]], template: str, most: int = 9) -> ClipText:
    """A words half of these words, ``most`` of a sentence; any other reads as the last of them."""
    names = [*vocabulary]

    def tokens(texts: list[str]) -> tuple[Tensor, ...]:
        rows = [[0, *(names.index(w) if w in names else len(names) - 1 for w in t.split()[:most]), 0] for t in texts]
        longest = max(map(len, rows))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return padded, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])

    return ClipText("table", 10.0, Table(torch.tensor([*vocabulary.values()])), tokens, templates=(template,))


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=lambda r: str(r["temp1"]))
def test_against_the_authors(run: dict[str, Any]) -> None:
    """The name is the second and the third of five words; how much either counts follows from their contexts."""
    regions, words = torch.tensor(GOLDEN["regions"]), torch.tensor(GOLDEN["words"])
    for i in range(2):
        said = dict(zip("abcde", words[i].T.tolist(), strict=True))
        encoder = SimpleNamespace(name="e", has_text=True, text=tower(said, "a {} d e"), layout=Layout())
        model: Any = SimpleNamespace(encoder=encoder, classes=("x", "b c"), head=None)
        look = EncoderOutput(regions[i : i + 1], regions[i : i + 1].mean((2, 3)))
        found = GLoRIAAttention(attention_scale=run["temp1"]).attribute(model, look, Target(torch.tensor([1])))[0]
        attention, context = torch.tensor(run["attention"])[i], torch.tensor(run["context"])[i].T
        near = torch.cosine_similarity(context, words[i].T, dim=1)[1:3]
        wanted = torch.einsum("t,thw->hw", (5 * near).softmax(0), attention[1:3]) - 1 / 12
        torch.testing.assert_close(found, wanted, rtol=0, atol=GOLDEN["tolerance"])


COLOUR = {"a": [0.0, 0.0, 0.0], "ember": [9.0, -3.0, -9.0], "frost": [-9.0, -3.0, 9.0], "thing": [1.0, 1.0, 1.0]}


def reader() -> Any:
    """Reads colours, and knows two words for them."""
    layer = nn.Linear(3, 2)
    text = tower(COLOUR, "a {} thing")
    return ZeroShot().build(
        build(Channels(), GlobalAverage(), Layout(), 3, text=text, classifier=layer), ["ember", "frost"]
    )


@pytest.mark.parametrize(("row", "column"), [(0, 0), (8, 20), (24, 24)])
def test_a_word_is_found_where_its_colour_is(row: int, column: int) -> None:
    pixels = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    pixels[row : row + 8, column : column + 8] = (255, GREY, 0)
    pixels[(row + 16) % 32 : (row + 16) % 32 + 8, :8] = (0, GREY, 255)
    model, hot = reader(), np.zeros((8, 8), bool)
    hot[row // 4 : row // 4 + 2, column // 4 : column // 4 + 2] = True
    heat = model.explain(pixels, where="gloria_attention", target="ember").where.heat
    assert heat.argmax() in np.flatnonzero(hot)
    assert heat.clip(min=0)[hot].sum() / heat.clip(min=0).sum() > 0.99
    other = model.explain(pixels, where="gloria_attention", target="frost").where.heat
    assert other[hot].max() < 0
    against = model.explain(pixels, where="gloria_attention", target="ember", contrast="frost").where.heat
    np.testing.assert_allclose(against, heat - other, atol=1e-6)
    assert abs(float(heat.sum())) < 1e-5, "0 is an even look"


def test_a_name_has_its_own_words_in_a_sentence() -> None:
    own = named_words(tower(COLOUR, "{}"), ["ember frost", "frost"], "a thing {} a")[2]
    assert own.tolist() == [[False] * 3 + [True, True, False, False], [False] * 3 + [True, False, False, False]]
    whole = named_words(tower(COLOUR, "{}"), ["ember"], "{}")
    assert whole[2].tolist() == whole[1].tolist() == [[False, True, False]]
    cut = named_words(tower(COLOUR, "{}", most=2), ["ember"], "a thing {}")
    assert cut[2].tolist() == cut[1].tolist(), "where the name is cut off, the sentence stands for it"


def test_a_sentence_of_one_word_has_no_map_and_one_around_it_has() -> None:
    encoder = tiny_pair()
    model = ZeroShot().build(encoder, ["cat", "dog"])
    look, target = encoder.encode(noise(2)), Target(torch.tensor([0, 1]))
    assert float(GLoRIAAttention(sentence="{}")(model, look, target).abs().max()) < 1e-6
    assert float(GLoRIAAttention(sentence="this is a {}")(model, look, target).abs().max()) > 1e-4


def test_what_shows_no_words_is_refused() -> None:
    model = ZeroShot().build(tiny_cnn(), ["cat", "dog"])
    with pytest.raises(InputError) as caught:
        GLoRIAAttention()(model, model.encoder.encode(noise(1)), Target(torch.tensor([0])))
    assert str(caught.value) == (
        "gloria_attention needs the text encoder's word vectors, which 'tiny' does not give. Use an "
        "encoder from seewhy adapt --objective gloria --train towers, or grad_cam, rise or occlusion."
    )
    model = ZeroShot().build(tiny_pair(), ["cat", "dog"])
    look = model.encoder.encode(noise(1))
    with pytest.raises(InputError) as caught:
        GLoRIAAttention()(
            model, EncoderOutput(torch.cat([look.features] * 2, 1), look.pooled), Target(torch.tensor([0]))
        )
    assert str(caught.value) == (
        "gloria_attention needs patches and pooled vectors of the same width, got 16 and 8 for "
        "'tiny'. Use grad_cam, rise or occlusion."
    )
    with pytest.raises(InputError, match="can only explain a class"):
        GLoRIAAttention()(model, look, lambda logits: logits[:, 0])


@pytest.mark.parametrize("wrong", [{"attention_scale": 0.0}, {"word_scale": -1.0}, {"sentence": "a cat"}])
def test_what_is_no_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"`sentence` must contain \{\} for the class name, got"):
        GLoRIAAttention(**wrong)


def test_tokens_of_their_own_width_are_regions_too() -> None:
    encoder = tiny_tokens(text=tiny_pair().text)
    model = ZeroShot().build(encoder, ["cat", "dog"])
    assert GLoRIAAttention()(model, encoder.encode(noise(2)), Target(torch.tensor([0, 1]))).shape == (2, 4, 4)
