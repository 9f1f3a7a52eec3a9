"""GIST: it begins where the encoder was, learns what the texts part, goes on after a stop, and says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy.descriptions import Descriptions
from seewhy.errors import DataError, InputError
from seewhy.language.matching import Caption
from seewhy.learning.adaptation.gist import GIST, GISTNetwork, Pairs, Turns, measure, tune
from seewhy.learning.objectives.pairs import GIST as Contrast
from seewhy.pictures.samples import load_samples
from seewhy.training.loop import Training
from tiny import CLASSES, class_folders, noise, tiny_cnn

WORDS = Descriptions({c: (f"{c} one", f"{c} two") for c in CLASSES[:3]})


def drawn(n: int = 12, width: int = 6) -> Pairs:
    """Texts that are the pictures' vectors turned: what one linear layer can undo."""
    seeded = torch.Generator().manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(n, width, generator=seeded), dim=1)
    turn = torch.linalg.qr(torch.randn(width, width, generator=seeded)).Q
    pairs = torch.stack([torch.arange(n), torch.arange(n)], 1)
    return Pairs([v[None] for v in image], image @ turn, pairs, torch.arange(n))


def test_before_training_the_encoder_is_as_it_was() -> None:
    on = tiny_cnn()
    grown = GISTNetwork(on, Turns(8)).encoder()
    assert torch.allclose(grown.encode_image(noise(3)), on.encode_image(noise(3)), atol=1e-6)
    assert torch.allclose(grown.encode_text(["a", "b"]), on.encode_text(["a", "b"]), atol=1e-6)
    assert grown.fingerprint != on.fingerprint
    assert grown.text.fingerprint != on.text.fingerprint  # or vectors kept of the one would be given for the other


def test_a_turned_space_is_turned_back() -> None:
    pairs, turns = drawn(), Turns(6)
    before = measure(turns, pairs)
    done = tune(turns, pairs, Contrast(10.0), Training(60, 12, lr=0.05, weight_decay=0))
    assert before < 0.5
    assert measure(turns, pairs) == 1.0
    assert done.history[-1]["loss"] < 0.1 * done.history[0]["loss"]
    assert not any(p.requires_grad for p in turns.parameters())


def test_a_stopped_training_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole, first, second = Turns(6), Turns(6), Turns(6)
    how = Training(8, 4, lr=0.02, checkpoint_every=4)
    tune(whole, drawn(), Contrast(10.0), how)

    class Stopped(Contrast):
        def rows(self, scores: Tensor, own: Tensor, labels: Any) -> Tensor:
            calls.append(1)
            if len(calls) == 2 * 6:
                raise KeyboardInterrupt
            return super().rows(scores, own, labels)

    calls: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        tune(first, drawn(), Stopped(10.0), how, (tmp_path / "x", "seal"))
    assert tune(second, drawn(), Contrast(10.0), how, (tmp_path / "x", "seal")).resumed_at == 4
    assert torch.equal(second.image.weight, whole.image.weight)


def test_texts_given_and_texts_matched_train_alike(tmp_path: Path) -> None:
    """A file that says what matching says makes the same classifier."""
    from seewhy.language.matching import match_pictures

    samples, recipe = load_samples(class_folders(tmp_path / "d", 4)), GIST(n_steps=3, batch_size=4, n_crops=1)
    matched = recipe.fit(tiny_cnn(), samples, descriptions=WORDS)
    captions = [c for c in match_pictures(tiny_cnn(), samples, WORDS) if isinstance(c, Caption)]
    given = recipe.fit(tiny_cnn(), samples, captions=captions)
    assert torch.equal(given.probabilities(noise(3)), matched.probabilities(noise(3)))
    assert matched.words is not None
    assert given.words is None
    assert given.measures["texts"] == matched.measures["texts"]
    assert given.measures["notes"][-1].startswith("texts of pictures: ")


def test_without_texts_or_with_too_few_it_is_refused(tmp_path: Path) -> None:
    samples = load_samples(class_folders(tmp_path / "d", 3))
    with pytest.raises(InputError) as caught:
        GIST().fit(tiny_cnn(), samples)
    assert str(caught.value) == (
        "gist needs texts of each class (--descriptions) or of each picture (--captions). To write "
        "some, run: seewhy describe write"
    )
    with pytest.raises(DataError, match="have no text, for example"):
        GIST().fit(tiny_cnn(), samples, captions=[Caption("nothing.png", "", ("a",))])
    with pytest.raises(InputError, match="n_captions=6"):
        GIST(n_captions=6)
