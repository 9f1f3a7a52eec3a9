"""The shipped sentence vectors and figures are those of this release's texts and encoders."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
import torch

from seewhy.encoders.embedded import SOURCES
from seewhy.encoders.imagenet_sentences import shipped
from seewhy.encoders.imagenet_words import imagenet_descriptions, imagenet_texts
from seewhy.encoders.minilm import load_minilm
from seewhy.encoders.text_space import class_centres


def test_the_shipped_vectors_are_used() -> None:
    vectors = shipped()
    assert vectors is not None, "run: python -m seewhy.encoders.imagenet_sentences"
    assert vectors["centres"].shape == (1000, 384)
    assert len(vectors["glosses"]) == sum(map(len, imagenet_descriptions().values()))


def test_every_embedded_encoder_has_its_words_measured() -> None:
    figures = json.loads(files("seewhy.encoders").joinpath("embedded_measures.json").read_text())
    assert set(figures) == set(SOURCES)
    assert all(0 < f["accuracy"] < f["network"] < 1 for f in figures.values())


@pytest.mark.slow
def test_the_shipped_vectors_are_what_the_sentence_encoder_gives() -> None:
    embed, vectors = load_minilm().encode, shipped()
    assert vectors is not None
    torch.testing.assert_close(class_centres(imagenet_texts()[:20], embed), vectors["centres"][:20], atol=1e-3, rtol=0)
    first = [text for texts in imagenet_descriptions().values() for text in texts][:20]
    torch.testing.assert_close(embed(first), vectors["glosses"][:20], atol=1e-3, rtol=0)
