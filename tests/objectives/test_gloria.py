"""GLoRIA: against the authors' numbers and attention, by hand, in blocks, and words that are not said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy.learning.objectives import regional
from seewhy.learning.objectives.regional import GLoRIA

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "gloria.json").read_text("utf-8"))
REGIONS = torch.tensor(GOLDEN["regions"]).flatten(2).transpose(1, 2)
WORDS = torch.tensor(GOLDEN["words"]).transpose(1, 2)
SAID = torch.arange(5) < torch.tensor(GOLDEN["lengths"])[:, None]


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=lambda r: str(r["temperatures"]))
def test_against_the_authors(run: dict[str, Any]) -> None:
    objective = GLoRIA(*run["temperatures"])
    whole = objective(torch.tensor(GOLDEN["image"]), torch.tensor(GOLDEN["text"]))
    assert float(whole) == pytest.approx(sum(run["whole"]), abs=GOLDEN["tolerance"])
    assert float(objective.local(REGIONS, WORDS, SAID)) == pytest.approx(sum(run["local"]), abs=GOLDEN["tolerance"])
    _, attention = objective.near(REGIONS, WORDS, SAID)
    for i, maps in enumerate(run["maps"]):
        found = attention[i, i, : GOLDEN["lengths"][i]].unflatten(1, (3, 2))
        torch.testing.assert_close(found, torch.tensor(maps), rtol=0, atol=GOLDEN["tolerance"])


def test_one_word_and_one_region_by_hand() -> None:
    """Nothing to attend to but the one region: the context is the region."""
    regions, words = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]]]), torch.tensor([[[1.0, 0.0]], [[0.6, 0.8]]])
    first, second = torch.tensor([[1.0, 0.6], [0.0, 0.8]]), torch.arange(2)
    scores = 2 * 3 * first
    wanted = sum(torch.nn.functional.cross_entropy(one, second) for one in (scores, scores.T))
    assert float(GLoRIA(4.0, 3.0, 2.0).local(regions, words)) == pytest.approx(float(wanted), rel=1e-5)


def test_words_compete_for_regions_before_regions_do_for_words() -> None:
    """A word that is as near to both regions is pushed out of the one that another word is nearer to."""
    regions = torch.tensor([[[6.0, 0.0], [0.0, 6.0]]])
    _, alone = GLoRIA().near(regions, torch.tensor([[[1.0, 1.0]]]), torch.ones(1, 1).bool())
    assert alone[0, 0, 0].tolist() == pytest.approx([0.5, 0.5])
    both = torch.tensor([[[1.0, 1.0], [2.0, 0.0]]])
    _, beside = GLoRIA().near(regions, both, torch.ones(1, 2).bool())
    e, sixth = math.exp(-6), math.exp(6)
    share = (1 / (1 + sixth), 1 / (1 + e))
    wanted = torch.tensor([4 * share[0], 4 * share[1]]).softmax(0)
    torch.testing.assert_close(beside[0, 0, 0], wanted)


def test_what_is_not_said_changes_nothing() -> None:
    other = torch.where(SAID[:, :, None], WORDS, torch.full_like(WORDS, 9.0))
    assert float(GLoRIA().local(REGIONS, other, SAID)) == float(GLoRIA().local(REGIONS, WORDS, SAID))
    assert float(GLoRIA().local(REGIONS, other)) != float(GLoRIA().local(REGIONS, WORDS))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    words, regions = WORDS.clone().requires_grad_(), REGIONS.clone().requires_grad_()

    def slopes() -> list[Tensor]:
        loss = GLoRIA().local(regions, words, SAID)
        return [loss.detach(), *torch.autograd.grad(loss, [words, regions])]

    whole, sizes = slopes(), []
    kept = GLoRIA.near

    def near(self: GLoRIA, regions: Tensor, words: Tensor, said: Tensor) -> Any:
        sizes.append(len(words))
        return kept(self, regions, words, said)

    monkeypatch.setattr(GLoRIA, "near", near)
    monkeypatch.setattr(regional, "BLOCK", 3 * 4 * 5 * 6)
    for a, b in zip(slopes(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert sizes[:2] == [3, 1]
    assert all(slope.isfinite().all() for slope in whole)
