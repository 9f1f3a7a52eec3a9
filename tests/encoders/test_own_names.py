"""A sentence that is nearer to an own class's name than to all that was heard keeps its old place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from seewhy.encoders.names import named, names_of, own_sentences
from seewhy.learning.encoders.adapted import Adaptation, open_adaptation
from seewhy.learning.encoders.heads import PairedHeads, centres_of, fewest_digits, likest, likest_other, openness
from seewhy.learning.encoders.towers import TunedTowers
from tiny import tiny_cnn
from tiny_words import tiny_pair


def unit(n: int, width: int = 8, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_openness_by_hand() -> None:
    heard, vectors = torch.eye(4)[:2], torch.eye(4)[[0, 2]]
    found = openness(vectors, heard, torch.tensor([0.9, 0.1]))
    expected = torch.sigmoid(torch.tensor([[(1 - 0.9) / 0.05], [(0 - 0.1) / 0.05]]))
    torch.testing.assert_close(found, expected)
    assert float(openness(vectors[:1], heard, torch.ones(1))) == 0.5


def test_the_likest_name_is_another_one() -> None:
    names = normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    torch.testing.assert_close(likest_other(names), torch.full((3,), 0.5**0.5))
    torch.testing.assert_close(likest(names, names), torch.ones(3))


def test_centres_lie_among_the_sentences() -> None:
    two = torch.cat([unit(1) + 0.01 * unit(30, seed=1), -unit(1) + 0.01 * unit(30, seed=2)])
    vectors = normalize(two, dim=1)
    found = centres_of(vectors, 2, seed=3)
    assert likest(torch.cat([unit(1), -unit(1)]), found).min() > 0.9999  # nearer than any one of them
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    few = centres_of(vectors[:3], 9)
    assert sorted(few[:, 0].tolist()) == sorted(vectors[:3, 0].tolist())


def test_who_has_names() -> None:
    assert named(tiny_pair())
    assert not named(Adaptation(tiny_pair(), TunedTowers.before(tiny_pair(), "image")).encoder())
    assert names_of(tiny_cnn())[0].startswith("a photo of a ")


@pytest.mark.parametrize("hears", [True, False])
def test_saved_and_loaded_it_guards_the_same(hears: bool, tmp_path: Path) -> None:
    on = tiny_pair()
    heads = PairedHeads.before(on, 3)
    if hears:
        heads.hear(unit(5))
    made = Adaptation(on, heads, 0.4).encoder()
    again = open_adaptation(Adaptation(on, heads, 0.4).save(tmp_path / "enc"), base=on)
    texts = [*on.classes, "something else", "moss"]
    assert torch.equal(made.encode_text(texts), again.encoder().encode_text(texts))
    names = own_sentences(on.text, names_of(on))
    old, new = made.text.place(names).split([8, 3], 1)  # type: ignore[attr-defined]
    plain = heads.text(names, heads.placed(on.text, names, 0.4), 0.4)
    open_ = openness(names, normalize(heads.heard, dim=1), torch.ones(len(names))) if heads.heard is not None else 1.0
    expected = normalize(torch.cat([plain[:, :8], open_ * plain[:, 8:]], 1), dim=1)
    torch.testing.assert_close(torch.cat([old, new], 1), expected)
    if heads.heard is not None:
        assert fewest_digits(heads.heard).dtype == torch.int8
