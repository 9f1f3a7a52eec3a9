"""Text networks opened between vocabulary and first layer: the same numbers, gradients, and room for learnt vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_huggingface
import test_open_clip
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from seewhy.encoders import embedded, huggingface, open_clip
from seewhy.encoders.base import TrainableText
from seewhy.encoders.minilm import MAX_TOKENS, MiniLM
from seewhy.encoders.text_tokens import Sentence, TokenEmbeddings, encode_tokens
from seewhy.errors import InputError, ModelError
from tiny_words import bag_of_words

LONG = "a cat and two dogs " * 2000
TEXTS = ["a photo of a cat", "two dogs", "a"]
LONGEST = {"clip": 12, "siglip": 12, "vit": 77, "open_siglip": 16, "coca": 77, "lite0": MAX_TOKENS}


def coca(folder: Path) -> None:
    """A text tower that pools a token of its own."""
    text = test_open_clip.TEXT | {"embed_cls": True, "context_length": 76}
    test_open_clip.save(folder, test_open_clip.CONFIGS["vit"] | {"custom_text": True, "text_cfg": text})


@pytest.fixture(scope="module", params=LONGEST)
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    kind, folder = request.param, tmp_path_factory.mktemp("tower")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        if kind == "lite0":
            return embedded.load("lite0", engine="torch").text
        if kind in ("clip", "siglip"):
            test_huggingface.pair(folder, kind)
            return huggingface.load(str(folder), engine="torch").text
        if kind == "coca":
            coca(folder)
        else:
            test_open_clip.save(folder, test_open_clip.CONFIGS[kind.removeprefix("open_")])
        return open_clip.load(f"local-dir:{folder}", engine="torch").text


def test_pooled_is_what_encode_text_gives(tower: TrainableText) -> None:
    texts = [*TEXTS, LONG]
    tokens = tower.tokens(texts)
    for given in (tokens, tower.embed(tokens)):
        out = tower.encode_tokens(given)
        torch.testing.assert_close(normalize(out.pooled, dim=1), tower.encode_text(texts), atol=1e-6, rtol=0)
        assert out.vectors.shape == (*out.words.shape, out.pooled.shape[1])


def test_words_are_words(tower: TrainableText) -> None:
    words = tower.embed(tower.tokens(TEXTS)).words
    assert words.sum(1).tolist() == [5, 2, 1]
    assert not words[:, 0].any()
    assert words[0, 1:6].all()


def test_a_text_that_is_too_long_is_counted(tower: TrainableText) -> None:
    assert tower.n_cut([*TEXTS, LONG, LONG]) == 2
    assert tower.n_cut([]) == 0
    full = tower.embed(tower.tokens([LONG]))
    room = full.sentence.longest - full.sentence.opening - full.sentence.closing
    assert tower.n_cut([" ".join(["a"] * room), " ".join(["a"] * (room + 1))]) == 1


def test_the_pooled_token_is_its_own_vector(tower: TrainableText, request: pytest.FixtureRequest) -> None:
    """Where one token is pooled, its vector is the sentence's: norm and projection are the same for all."""
    out = tower.encode_tokens(tower.tokens(TEXTS))
    same = (out.vectors - out.pooled[:, None]).abs().amax(2) < 1e-5
    pools_a_token = request.node.callspec.params["tower"] not in ("coca", "lite0")
    assert same.any(1).tolist() == [pools_a_token] * 3


def test_gradient_reaches_vocabulary_and_prefix(tower: TrainableText) -> None:
    found = tower.embed(tower.tokens(TEXTS))
    prefix = (0.02 * torch.ones(2, found.vectors.shape[2])).requires_grad_()
    words = found.vectors.clone().requires_grad_()
    out = tower.encode_tokens(TokenEmbeddings(words, found.ids, found.lengths, found.words, found.sentence))
    (gradient,) = torch.autograd.grad(out.vectors[out.words].square().sum(), words)
    assert (gradient.abs().sum(2) > 0)[found.words].all()
    (gradient,) = torch.autograd.grad(tower.encode_tokens(found.with_prefix(prefix)).pooled.square().sum(), prefix)
    assert (gradient.abs().sum(1) > 0).all()


def test_words_put_in_as_vectors_are_words(tower: TrainableText) -> None:
    """A prefix made of the vocabulary's own vectors gives what the same words give."""
    whole = tower.embed(tower.tokens(["two a photo of a cat", "two a"]))
    prefix = whole.vectors[:1, 1:3].detach()
    put = tower.embed(tower.tokens(["photo of a cat", ""])).with_prefix(prefix[0])
    ours, theirs = tower.encode_tokens(put), tower.encode_tokens(whole)
    torch.testing.assert_close(ours.pooled, theirs.pooled, atol=1e-5, rtol=1e-4)
    assert ours.words.sum(1).tolist() == [4, 0]
    one_each = tower.embed(tower.tokens(["photo of a cat", ""])).with_prefix(prefix.expand(2, -1, -1))
    assert torch.equal(tower.encode_tokens(one_each).pooled, ours.pooled)


def test_a_prefix_costs_the_last_words_and_never_the_end(tower: TrainableText) -> None:
    full, short = tower.embed(tower.tokens([LONG, "a cat"])), tower.embed(tower.tokens(["a cat"]))
    put = full.with_prefix(torch.zeros(3, full.vectors.shape[2]))
    t = full.sentence.longest
    assert put.vectors.shape[1] == t
    assert put.lengths.tolist() == [t, int(full.lengths[1]) + 3]
    assert put.words.sum(1).tolist() == [int(full.words[0].sum()) - 3, 2]
    torch.testing.assert_close(put.vectors[0, -1], full.vectors[0, -1])
    torch.testing.assert_close(put.vectors[0, 4:-1], full.vectors[0, 1:-4])
    assert (put.vectors[:, 1:4] == 0).all()
    assert put.ids[0, -1] == full.ids[0, -1]
    alone = short.with_prefix(torch.zeros(3, full.vectors.shape[2]))
    torch.testing.assert_close(
        tower.encode_tokens(put).pooled[1:], tower.encode_tokens(alone).pooled, atol=1e-5, rtol=1e-4
    )


def test_prefixes_that_do_not_fit_are_refused(tower: TrainableText) -> None:
    found = tower.embed(tower.tokens(TEXTS))
    width, longest = found.vectors.shape[2], found.sentence.longest
    with pytest.raises(InputError) as caught:
        found.with_prefix(torch.zeros(2, width + 1))
    assert str(caught.value) == (f"`prefix` must have the shape (p, {width}) or (3, p, {width}), got (2, {width + 1}).")
    with pytest.raises(InputError) as caught:
        found.with_prefix(torch.zeros(longest - 2, width))
    assert str(caught.value) == (
        f"`prefix` must have at most {longest - 3} vectors, got {longest - 2}: the network reads {longest} tokens, of "
        "which 2 are special tokens and one is a word."
    )


def test_a_network_without_tokens_says_so() -> None:
    with pytest.raises(ModelError) as caught:
        encode_tokens(nn.EmbeddingBag(9, 8), bag_of_words().tokens(TEXTS))
    assert str(caught.value) == (
        "The text encoder EmbeddingBag does not give access to its tokens. Use an embedded encoder, or one whose "
        "name begins with 'open_clip:' or 'hf:'."
    )


def test_a_network_of_random_weights_is_read_as_a_whole() -> None:
    torch.manual_seed(0)
    network = MiniLM(2, 24, 2, 50, 12).eval()
    ids, mask = torch.randint(1, 50, (3, 9)), (torch.arange(9) < torch.tensor([[9], [4], [2]])).long()
    out = encode_tokens(network, (ids, mask))
    torch.testing.assert_close(out.pooled, network(ids, mask), atol=1e-7, rtol=0)
    means = torch.stack([v[:n].mean(0) for v, n in zip(out.vectors, (9, 4, 2), strict=True)])
    torch.testing.assert_close(normalize(means, dim=1), out.pooled)
    assert out.words.sum(1).tolist() == [7, 2, 0]
    assert network.embed(ids, mask).sentence.longest == 12


def tokenizer(whole: list[int], pad: int) -> Callable[..., dict[str, list[int]]]:
    def cut(_text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": whole if add_special_tokens else [5]}

    cut.pad_token_id = pad  # type: ignore[attr-defined]
    return cut


@pytest.mark.parametrize(
    ("whole", "pad", "closed", "ids", "length"),
    [
        ([7, 5, 8], 0, True, [7, 5, 5, 8, 0, 0], 4),
        ([5, 1], 1, True, [5, 5, 5, 1, 1, 1], 4),  # SigLIP: the end mark is the padding
        ([5, 1], 1, True, [5, 5, 5, 5, 5, 1], 6),
        ([5, 1], 1, True, [1, 1, 1, 1, 1, 1], 1),
        ([7, 5, 8], 0, False, [7, 5, 5, 0, 0, 0], 3),
    ],
)
def test_where_a_sentence_ends(whole: list[int], pad: int, closed: bool, ids: list[int], length: int) -> None:
    sentence = Sentence.of(tokenizer(whole, pad), 6, closed=closed)
    assert sentence.lengths(torch.tensor([ids])).tolist() == [length]


def test_a_word_that_is_also_padding_ends_no_sentence() -> None:
    """CLIP pads with the number of "!"."""
    ids: Tensor = torch.tensor([[49406, 0, 320, 0, 49407, 0, 0]])
    assert Sentence(77, end=49407).lengths(ids).tolist() == [5]


def test_the_embedded_tower_places_each_token_as_a_sentence_is_placed() -> None:
    tower = embedded.load("lite0", engine="torch").text
    assert isinstance(tower, embedded.EmbeddedText)
    tokens = tower.tokens(TEXTS[:1])
    states = encode_tokens(tower.module.sentences, tokens).vectors[0]  # type: ignore[arg-type]
    placed = normalize(tower.encode_tokens(tokens).vectors[0], dim=1)
    torch.testing.assert_close(placed, tower.space.place(normalize(states, dim=1)), atol=1e-5, rtol=0)


def test_coca_norms_every_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does the one that it pools, so that a scaled vocabulary changes little."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    coca(tmp_path)
    tower: Any = open_clip.load(f"local-dir:{tmp_path}", engine="torch").text
    text = tower.module.model.text
    text.text_projection = None
    assert tower.encode_tokens(tower.tokens(TEXTS)).vectors.mean(2).abs().max() < 1e-5
