"""Class names and captions in one training: told apart by a prefix, in batches of one kind, kept and found again."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

import seewhy
from seewhy.classifiers.encoded_set import EncodedSet
from seewhy.encoders.base import Encoder
from seewhy.encoders.split import freeze
from seewhy.encoders.stream import Encoded
from seewhy.encoders.text_tokens import ClipText
from seewhy.errors import DataError, InputError, ModelError
from seewhy.learning.api import ByClassesAndCaptions, two_kinds
from seewhy.learning.encoders.adapted import Adaptation, open_adaptation
from seewhy.learning.encoders.towers import PrefixedWords
from seewhy.learning.objectives.pairs import Prefix
from seewhy.pictures.samples import Sample
from seewhy.progress import Progress
from seewhy.training.batches import TrainingData
from seewhy.training.loop import train
from tiny import noise, tiny_cnn
from tiny_words import Opened, hashed, opened

WORDS = ("wren", "oak", "rain", "sand")
HOW = ByClassesAndCaptions("kind", objective=Prefix(0.1, n_tokens=1), epochs=20, batch_size=16, lr=2e-2, prefix_lr=2.0)


def random_words(on: Encoder) -> PrefixedWords:
    """As if they were trained."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        words = PrefixedWords.before(on, 2)
        words.words.out.bias.data += 0.5  # type: ignore[operator, union-attr]
    return words.requires_grad_(False)


def by_hand(words: PrefixedWords, text: str, source: int) -> Tensor:
    ids, _ = hashed([text])
    inner: Opened = words.words  # type: ignore[assignment]
    vectors = torch.cat([words.prefix[source], inner.words(ids[0])])
    return normalize(inner.out(gelu(vectors.mean(0))), dim=0)


def test_a_text_is_read_behind_the_prefix_of_its_kind() -> None:
    on, pixels = opened(), noise(2)
    words = random_words(on)
    now = Adaptation(on, words).encoder()
    texts = ["a wren", "rain on the oak"]
    for source, encoder in enumerate((now.under("class"), now.under("caption"))):
        wanted = torch.stack([by_hand(words, text, source) for text in texts])
        torch.testing.assert_close(encoder.encode_text(texts), wanted)
        assert torch.equal(encoder.encode_image(pixels), on.encode_image(pixels))
        assert (encoder.classes, encoder.looks) == (on.classes, on.looks)
    assert torch.equal(now.encode_text(texts), now.under("caption").encode_text(texts))
    assert len({e.text.fingerprint for e in (on, now.under("class"), now)}) == 3


def test_what_is_kept_of_it() -> None:
    on, texts = opened(), ["a wren", "rain on the oak"]
    whole, half, none = (Adaptation(on, random_words(on), keep).encoder().encode_text(texts) for keep in (1, 0.5, 0))
    assert torch.equal(none, on.encode_text(texts))
    torch.testing.assert_close(half, normalize(whole + none, dim=1))


def test_another_kind_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        Adaptation(opened(), random_words(opened())).encoder("enc").under("poem")
    assert str(caught.value) == ("The prefix of 'enc' must be 'class' or 'caption', got 'poem'.")


def test_saved_and_loaded_it_reads_the_same(tmp_path: Path) -> None:
    on = opened()
    made = Adaptation(on, random_words(on))
    folder = made.save(tmp_path / "enc")
    assert set(made.trained.delta(on)) == {"prefix", "words.out.bias"}
    assert open_adaptation(folder, base=opened()).trained.facts() == {"form": "prefix", "n_tokens": 2}
    for source in ("class", "caption"):
        again = seewhy.encoder(f"{folder}#{source}", base=opened())
        ours = made.encoder().under(source)
        assert again.fingerprint == ours.fingerprint
        assert torch.equal(again.encode_text(WORDS), ours.encode_text(WORDS))
    card = folder / "encoder.json"
    card.write_text(card.read_text("utf-8").rstrip().replace('"n_tokens": 2', '"n_tokens": 3'), "utf-8")
    with pytest.raises(ModelError, match=r"is damaged \(its prefixes have the shape \(2, 2, 8\)\)"):
        open_adaptation(folder, base=opened())


@cache
def taught(how: ByClassesAndCaptions = HOW) -> Encoder:
    """Classes call a direction by one word, and captions the next direction by the same."""
    on, which = opened(), [i % 4 for i in range(64)]
    names = [WORDS[k] if i < 32 else "" for i, k in enumerate(which)]
    captions = tuple(() if i < 32 else (WORDS[k - 1],) for i, k in enumerate(which))
    said = {"class": tuple((name,) if name else () for name in names), "caption": captions}
    encoded = [Encoded("x", "x", one[None]) for one in torch.eye(8)[which] + 0.01]
    own = EncodedSet([Sample("x")] * 64, encoded, columns=said)
    words, task, data = how.prepared(on, own, Progress())
    told = how.told(own, data, train(task, data, how.training(data, on)))
    assert told["n_named"] == told["n_captioned"] == 32
    return Adaptation(on, words.requires_grad_(False), 1.0).encoder()


def directions(encoder: Encoder) -> list[int]:
    return (encoder.encode_text(WORDS) @ torch.eye(8)[:4].T).argmax(1).tolist()


def test_one_word_means_two_things_where_the_prefix_says_which() -> None:
    assert directions(taught().under("class")) == [0, 1, 2, 3]
    assert directions(taught()) == [1, 2, 3, 0]


def test_prefixes_alone_are_learnt_where_asked_and_never_decay() -> None:
    how = replace(HOW, learn="prefixes", epochs=1)
    found, again = (taught(replace(how, weight_decay=decay)) for decay in (0.0, 50.0))
    words, same = (e.text.words for e in (found, again))  # type: ignore[attr-defined]
    assert torch.equal(words.prefix, same.prefix)
    assert set(words.delta(opened())) == {"prefix"}


def test_batches_are_of_one_kind_where_they_are_asked_to_be() -> None:
    kinds = torch.tensor([0, 1, 1, 0, 1, 0, 1, 1, 1, 0, 0])
    data = TrainingData(11, {"kind": kinds}, apart=kinds)
    assert data.steps_per_epoch(2) == 5
    epochs = [[data.batch(5 * epoch + step, 2, seed=1) for step in range(5)] for epoch in range(2)]
    for epoch in epochs:
        assert all(len(batch) == 2 and len(set(batch["kind"].tolist())) == 1 for batch in epoch)
        shown = [i for batch in epoch for i in batch.index]
        assert len(set(shown)) == 10
    first, second = ([batch.index for batch in epoch] for epoch in epochs)
    assert first != second
    assert first == [data.batch(step, 2, seed=1).index for step in range(5)]
    assert TrainingData(11, {}, apart=kinds).steps_per_epoch(100) == 2
    assert TrainingData(11, {}).steps_per_epoch(2) == 5
    order = [int(data.batch(step, 2, seed=2)["kind"][0]) for step in range(10)]
    assert order not in ([0, 0, 1, 1, 1] * 2, [0, 1, 0, 1, 1] * 2), "kinds come in mixed order"


def test_pairs_have_labels_and_kinds() -> None:
    on = opened()
    names, captions = ["a wren", "an oak", "", "a wren"], [["rain", "sand"], [], ["rain", "sand"], ["sand"]]
    data = two_kinds(on, torch.eye(8)[:4], names, captions, Prefix())
    assert data.n_samples == 6
    assert data.columns["labels"].tolist() == [0, 1, 0, 2, 2, 3]
    assert data.apart is not None
    assert data.apart.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(data.columns["image"], torch.eye(8)[[0, 1, 3, 0, 2, 3]])
    source, *tokens = data.columns["text"].drawn([1, 5], [np.random.default_rng(0)] * 2)
    assert source.tolist() == [0, 1]
    assert all(torch.equal(a, b) for a, b in zip(tokens, hashed(["an oak", "sand"]), strict=True))
    assert two_kinds(on, torch.eye(8)[:4], names, captions, Prefix(debiased=False)).apart is None


def test_what_is_not_of_two_kinds_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        two_kinds(opened(), torch.eye(8)[:3], ["a wren", "an oak", ""], [["rain"], [], []], Prefix())
    assert str(caught.value) == (
        "Classes and captions must have one entry per picture, and at least 2 of each must not be "
        "empty, got 3 pictures, 3 classes (2 not empty) and 3 lists of captions (1 not empty)."
    )


def test_a_network_that_cannot_be_opened_is_refused() -> None:
    closed = tiny_cnn(text=ClipText("closed", 10.0, freeze(nn.Linear(8, 8)), lambda texts: (torch.zeros(1, 8),)))
    with pytest.raises(ModelError, match="does not give access to its tokens"):
        PrefixedWords.before(closed)
