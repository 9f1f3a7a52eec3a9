"""What is shipped fits what is installed, and is left alone where it does not."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
import torch

from seewhy.encoders import embedded as shipped
from seewhy.encoders.embedded import SOURCES, class_centres, fingerprint_of
from seewhy.encoders.minilm import load_minilm
from seewhy.encoders.names import imagenet_descriptions, imagenet_texts


def test_shipped_sentences_are_what_the_sentence_encoder_says() -> None:
    vectors = shipped.sentences()
    assert shipped.shipped(shipped.SENTENCES), "run: python release/shipped_vectors.py"
    texts = imagenet_texts()[::100]
    assert torch.allclose(vectors["centres"][::100], class_centres(texts, load_minilm().encode), atol=2e-3)
    glosses = [text for several in imagenet_descriptions().values() for text in several]
    assert vectors["glosses"].shape == (len(glosses), 384)
    assert torch.allclose(vectors["glosses"][:8], load_minilm().encode(glosses[:8]), atol=2e-3)


def test_every_embedded_encoder_has_what_emoji_add() -> None:
    for name in SOURCES:
        term = shipped.emoji_term(fingerprint_of(name))
        assert term is not None, "run: python release/shipped_vectors.py FONT KEYWORDS"
        assert (term["left"].shape, term["right"].shape) == ((1000 + len(term["centres"]), 64), (64, 1280))
        assert torch.equal(term["centres"], term["centres"].round())
    assert shipped.emoji_term("another") is None


def test_nothing_is_used_with_other_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped.shipped.cache_clear()
    monkeypatch.setattr(shipped, "MINILM_SHA256", "another")
    assert shipped.emoji_term(fingerprint_of("lite0")) is None
    assert not shipped.shipped(shipped.SENTENCES)
    shipped.shipped.cache_clear()


def test_every_embedded_encoder_has_its_words_measured() -> None:
    figures = json.loads(files("seewhy.encoders").joinpath("embedded_measures.json").read_text())
    assert set(figures) == set(SOURCES)
    assert all(0 < f["accuracy"] < f["network"] < 1 for f in figures.values())
