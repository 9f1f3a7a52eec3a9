"""Objectives: by hand on two pairs, against the authors' numbers, and what must not change them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from seewhy.errors import InputError
from seewhy.learning.adaptation.gpt4image import DEIT_STD, RESNET_STD, projection
from seewhy.learning.objectives.pairs import GIST, GPT4Image

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "gpt4image.json").read_text("utf-8"))
IMAGE = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
TEXT = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
"""Cosines are [[1, 0.6], [0, 0.8]]."""


def soft(own: float, other: float) -> float:
    """Cross entropy of two scores."""
    return math.log(math.exp(own) + math.exp(other)) - own


def test_gist_by_hand() -> None:
    rows = (soft(10, 6) + soft(8, 0)) / 2
    columns = (soft(10, 0) + soft(8, 6)) / 2
    assert float(GIST(scale=10)(IMAGE, TEXT)) == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_gist_with_pairs_of_one_class_left_out_has_nothing_left_to_tell_apart() -> None:
    one_class = torch.tensor([3, 3])
    assert float(GIST(10, "masked")(IMAGE, TEXT, one_class)) == 0.0
    two = torch.tensor([0, 1])
    assert float(GIST(10, "masked")(IMAGE, TEXT, two)) == pytest.approx(float(GIST(10)(IMAGE, TEXT)))


def test_gist_with_pairs_of_one_class_right_has_equal_parts() -> None:
    rows = (soft(10, 6) + soft(6, 10) + soft(8, 0) + soft(0, 8)) / 4
    columns = (soft(10, 0) + soft(0, 10) + soft(8, 6) + soft(6, 8)) / 4
    found = float(GIST(10, "positive")(IMAGE, TEXT, torch.tensor([1, 1])))
    assert found == pytest.approx((rows + columns) / 2, rel=1e-5)
    two = torch.tensor([0, 1])
    assert float(GIST(10, "positive")(IMAGE, TEXT, two)) == pytest.approx(float(GIST(10)(IMAGE, TEXT)))


def test_a_masked_pair_has_finite_gradients() -> None:
    image = IMAGE.clone().requires_grad_()
    loss = GIST(10, "masked")(torch.cat([image, -image]), torch.cat([TEXT, -TEXT]), torch.tensor([0, 0, 1, 1]))
    (slope,) = torch.autograd.grad(loss, image)
    assert slope.isfinite().all()


def test_gpt4image_by_hand() -> None:
    rows = (soft(5, 3) + soft(4, 0)) / 2
    columns = (soft(5, 0) + soft(4, 3)) / 2
    assert float(GPT4Image("ctr", tau=0.2)(IMAGE, TEXT)) == pytest.approx(rows, rel=1e-5)
    assert float(GPT4Image("clip", tau=0.2)(IMAGE, TEXT)) == pytest.approx((rows + columns) / 2, rel=1e-5)
    assert float(GPT4Image("byol")(IMAGE, TEXT)) == pytest.approx((0 + 2 - 2 * 0.8) / 2, rel=1e-5)


@pytest.mark.parametrize("expected", GOLDEN["losses"], ids=lambda e: f"tau={e['tau']}")
@pytest.mark.parametrize("form", ["clip", "ctr", "byol"])
def test_gpt4image_against_the_authors(expected: dict[str, float], form: str) -> None:
    found = GPT4Image(form, expected["tau"])(torch.tensor(GOLDEN["image"]), torch.tensor(GOLDEN["text"]))  # type: ignore[arg-type]
    assert float(found) == pytest.approx(expected[form], abs=GOLDEN["tolerance"])


@pytest.mark.parametrize("objective", [GIST(5), GIST(5, "masked"), GIST(5, "positive"), GPT4Image(), GPT4Image("byol")])
def test_order_and_length_change_nothing(objective: GIST | GPT4Image) -> None:
    drawn = torch.Generator().manual_seed(1)
    image, text = torch.randn(6, 5, generator=drawn), torch.randn(6, 5, generator=drawn)
    labels, order = torch.tensor([0, 1, 1, 2, 0, 1]), torch.tensor([3, 5, 0, 1, 4, 2])
    loss = float(objective(image, text, labels))
    assert float(objective(image[order], text[order], labels[order])) == pytest.approx(loss, rel=1e-5)
    assert float(objective(7 * image, 0.1 * text, labels)) == pytest.approx(loss, rel=1e-5)
    assert float(objective(image, text[order], labels)) != pytest.approx(loss, rel=1e-3)


def test_swapping_the_sides_changes_the_two_sided_forms_not() -> None:
    assert float(GIST(5)(IMAGE, TEXT)) == pytest.approx(float(GIST(5)(TEXT, IMAGE)))
    assert float(GPT4Image("clip")(IMAGE, TEXT)) == pytest.approx(float(GPT4Image("clip")(TEXT, IMAGE)))
    assert float(GPT4Image("ctr")(IMAGE, TEXT)) != pytest.approx(float(GPT4Image("ctr")(TEXT, IMAGE)), rel=1e-3)


def test_projections_are_those_of_the_authors() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        resnet, deit = projection("mlp", 256, 384), projection("mlp", 256, 384, convolutional=False)
        plain = projection("linear", 256, 384)
    assert [type(layer).__name__ for layer in resnet] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in deit] == ["Linear", "ReLU", "Linear"]
    assert (resnet[0].bias, plain[0].bias) == (None, None)
    assert resnet[0].weight.shape == (768, 256)
    assert float(resnet[0].weight.detach().std()) == pytest.approx(RESNET_STD, rel=0.02)
    assert float(deit[0].weight.detach().std()) == pytest.approx(DEIT_STD, rel=0.02)


def test_what_is_no_batch_of_pairs_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        GIST()(torch.zeros(0, 3), torch.zeros(0, 3))
    assert str(caught.value) == (
        "gist needs pictures, texts and labels with one row per pair and vectors of the same width, "
        "got shapes (0, 3), (0, 3)."
    )
    with pytest.raises(InputError, match=r"^`labels` must be given for the objective gist"):
        GIST(same_class="masked")(IMAGE, TEXT)
