"""MedCLIP: against the authors' numbers, by hand, with findings, classes, neither, and texts of other pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from seewhy.learning.objectives.pairs import CLIP, MedCLIP

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "medclip.json").read_text("utf-8"))
IMAGE, TEXT, FOUND, SAID = (torch.tensor(GOLDEN[n]) for n in ("image", "text", "image_findings", "text_findings"))


@pytest.mark.parametrize("expected", GOLDEN["losses"], ids=lambda e: f"scale={e['scale']:.0f}")
def test_against_the_authors(expected: dict[str, float]) -> None:
    objective = MedCLIP(1 / expected["scale"])
    assert float(objective(IMAGE, TEXT, FOUND)) == pytest.approx(expected["paired"], abs=GOLDEN["tolerance"])
    unpaired = float(objective(IMAGE, TEXT, (FOUND, SAID)))
    assert unpaired == pytest.approx(expected["unpaired"], abs=GOLDEN["tolerance"])


def test_targets_by_hand() -> None:
    found = torch.tensor([[1, 1, 0], [1, 1, -1], [0, 0, -1]])
    e, e2, e3 = math.e, math.e**2, math.e**3
    wanted = torch.tensor([[e2, e2, 1], [e2, e3, e], [1, e, e]])
    torch.testing.assert_close(MedCLIP().targets(found, found), wanted / wanted.sum(1, keepdim=True))
    cosine = MedCLIP(alike="cosine").targets(found[:1], found)[0]
    own = torch.tensor([1.0, 2 / math.sqrt(6), 0.0]).exp()
    torch.testing.assert_close(cosine, own / own.sum())
    classes = MedCLIP().targets(torch.tensor([2]), torch.tensor([2, 0, 2, 1]))[0]
    torch.testing.assert_close(classes, torch.tensor([e, 1, e, 1]) / (2 + 2 * e))


def test_even_targets_show_in_their_entropy() -> None:
    """What the cosine leaves of sixteen findings: nearly nothing to learn from."""
    found = 2 * torch.randint(0, 2, (64, 16), generator=torch.Generator().manual_seed(0)) - 1

    def entropy(alike: Any) -> float:
        return float(torch.special.entr(MedCLIP(alike=alike).targets(found, found)).sum(1).mean() / math.log(64))

    assert entropy("dot") < 0.2
    assert entropy("cosine") > 0.98


def test_who_finds_nothing_has_even_targets_and_finite_gradients() -> None:
    image = IMAGE.clone().requires_grad_()
    for alike in ("dot", "cosine"):
        (slope,) = torch.autograd.grad(MedCLIP(alike=alike)(image, TEXT, torch.zeros(6, 5).int()), image)  # type: ignore[arg-type]
        assert slope.isfinite().all()
    assert MedCLIP().targets(torch.zeros(1, 5), FOUND).unique().tolist() == pytest.approx([1 / 6])


def test_without_labels_it_is_clip() -> None:
    assert float(MedCLIP()(IMAGE, TEXT)) == pytest.approx(float(CLIP()(IMAGE, TEXT)), rel=1e-6)
