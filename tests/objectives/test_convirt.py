"""ConVIRT: against the port that is used most, by hand, and what it draws."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from seewhy.learning.objectives.pairs import ConVIRT

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "convirt.json").read_text("utf-8"))


@pytest.mark.parametrize("expected", GOLDEN["losses"], ids=lambda e: f"{e['temperature']}, {e['lam']}")
def test_against_the_port(expected: dict[str, float]) -> None:
    found = ConVIRT(expected["temperature"], expected["lam"])(
        torch.tensor(GOLDEN["image"]), torch.tensor(GOLDEN["text"])
    )
    assert float(found) == pytest.approx(expected["loss"], abs=GOLDEN["tolerance"])


def test_pictures_over_texts_count_three_times_as_much() -> None:
    """Two pictures at one place: each is unsure of its text, while a text is sure of neither or of both."""
    image, text = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    pictures = (math.log(1 + math.exp(-10)) + math.log(1 + math.exp(10))) / 2
    assert float(ConVIRT()(image, text)) == pytest.approx(0.75 * pictures + 0.25 * math.log(2), rel=1e-5)


def test_nothing_is_learnt_and_a_sentence_is_drawn() -> None:
    assert not [*ConVIRT().state().parameters()]
    assert ConVIRT().spans == "sentence"
