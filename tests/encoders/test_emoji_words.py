"""What emoji add is shipped for every embedded encoder, read from what it was made from, and used where it fits."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from seewhy.encoders import embedded, emoji_words
from seewhy.encoders.embedded import SOURCES, EmbeddedText, fingerprint_of
from seewhy.encoders.emoji_words import MIX, RANK, emoji_term, fit_emoji, shipped, whole_numbers
from seewhy.encoders.text_space import TextSpace


def test_every_embedded_encoder_has_its_term() -> None:
    for name in SOURCES:
        found = emoji_term(fingerprint_of(name))
        assert found is not None, "run: python -m seewhy.encoders.emoji_words"
        m = len(found["centres"])
        assert (found["left"].shape, found["right"].shape) == ((1000 + m, RANK), (RANK, 1280))
        assert torch.equal(found["centres"], found["centres"].round())
    assert emoji_term("another") is None


def test_it_is_not_used_with_other_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped.cache_clear()
    monkeypatch.setattr(emoji_words, "MINILM_SHA256", "another")
    assert emoji_term(fingerprint_of("lite0")) is None
    shipped.cache_clear()


def test_directions_survive_in_whole_numbers() -> None:
    vectors = normalize(torch.randn(9, 384, generator=torch.Generator().manual_seed(0)), dim=1)
    found = whole_numbers(vectors)
    assert found.abs().max() == 127
    assert (normalize(found, dim=1) * vectors).sum(1).min() > 0.9999


class Words(EmbeddedText):
    """Words on axes; the regression on classes alone gives nothing."""

    def refit(self) -> dict[str, torch.Tensor]:
        return {"coefficients": torch.zeros(3, 8)}


def test_pictures_of_emoji_pull_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoji_words, "RANK", 4)
    axes = torch.eye(9)
    space = TextSpace(axes[:3], torch.zeros(3, 8), torch.zeros(8), lambda _: axes[:0], 0.5)
    text = Words(space, "words", torch.zeros(3, 8))
    pictures = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    vectors = axes[3:].unsqueeze(1).expand(6, 2, 9)
    rows = normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    found = fit_emoji(text, (rows, axes[:3]), pictures, vectors)
    placed = space.place_by(axes, {"coefficients": torch.zeros(3, 8), **{n: t.float() for n, t in found.items()}})
    among = found["right"].float().T @ found["right"].float()
    targets = torch.cat([rows, normalize(pictures - pictures.mean(0), dim=1)]) @ among
    likeness = normalize(placed, dim=1) @ normalize(targets, dim=1).T
    assert torch.equal(likeness.argmax(1), torch.arange(9))
    assert likeness.diag()[:3].min() > likeness.diag()[3:].min() > 0.8  # an emoji weighs less than a class


def test_the_embedded_encoder_is_fitted_anew_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "cached_tensors", lambda *_: {"refit": torch.ones(3, 8)})
    space = TextSpace(torch.eye(9)[:3], torch.zeros(3, 8), torch.zeros(8), lambda _: torch.eye(9)[:0], 0.5)
    known = EmbeddedText(space, "words", torch.zeros(3, 8), fingerprint_of("lite0")).refit()
    raw = shipped()[f"{fingerprint_of('lite0')[:16]}.left"].float()
    torch.testing.assert_close(known["left"], MIX * raw, atol=1e-4, rtol=1e-3)
    other = EmbeddedText(space, "words", torch.zeros(3, 8), "another").refit()
    assert list(other) == ["coefficients"]
    assert torch.equal(other["coefficients"], torch.ones(3, 8))
