"""Every registered objective that aligns pictures with texts: order, length and empty batches; gradients are finite."""

from __future__ import annotations

from typing import Literal, get_origin

import pytest
import torch

from registered import check_class, small
from seewhy.bounds import expected, limits
from seewhy.errors import InputError
from seewhy.learning.objectives import Contrastive, objectives
from seewhy.learning.objectives.contrastive import Regional

CONTRASTIVE = [name for name in objectives if issubclass(objectives[name], Contrastive)]
REGIONAL = [name for name in CONTRASTIVE if issubclass(objectives[name], Regional)]
LABELS = torch.tensor([0, 1, 1, 2, 0, 1])


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(1)
    return torch.randn(6, 5, generator=drawn), torch.randn(6, 5, generator=drawn)


@pytest.mark.parametrize("name", [*objectives])
def test_class_attributes_and_file_name(name: str) -> None:
    check_class(objectives, name)


@pytest.mark.parametrize("name", [*objectives])
def test_a_setting_outside_its_bounds_is_refused(name: str) -> None:
    bounded = limits(objectives[name])
    assert {*bounded} >= {"temperature"} & {*objectives[name].__dataclass_fields__}  # type: ignore[attr-defined]
    for field, hint in bounded.items():
        wrong = "nothing of it" if get_origin(hint) is Literal else float("nan")
        with pytest.raises(InputError) as caught:
            objectives[name](**{field: wrong})
        given = repr(wrong) if isinstance(wrong, str) else "nan"
        told = f"`{field}` of the objective {name} must be {expected(hint)}, got {given}."
        assert str(caught.value).startswith(told)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_order_and_length_change_nothing_and_the_pairing_does(name: str) -> None:
    objective, (image, text) = small(objectives, name), batch()
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    loss = float(objective(image, text, LABELS))
    assert loss == loss == float(objective(image, text, LABELS))
    assert float(objective(image[order], text[order], LABELS[order])) == pytest.approx(loss, rel=1e-5)
    assert float(objective(7 * image, 0.1 * text, LABELS)) == pytest.approx(loss, rel=1e-5)
    assert float(objective(image, text[order], LABELS)) != pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_a_step_against_the_gradient_makes_it_smaller(name: str) -> None:
    objective, (image, text) = small(objectives, name), batch()
    image = image.requires_grad_()
    loss = objective(image, text, LABELS)
    (slope,) = torch.autograd.grad(loss, image)
    assert slope.isfinite().all()
    nearer = (image - 1e-3 * slope / slope.norm()).detach()
    assert float(objective(nearer, text, LABELS)) < float(loss.detach())


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_no_batch_of_pairs_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} needs pictures, texts and labels with one row per pair"):
        small(objectives, name)(torch.zeros(0, 3), torch.zeros(0, 3))


@pytest.mark.parametrize("name", REGIONAL)
def test_parts_in_another_order_are_the_same_and_those_of_others_are_not(name: str) -> None:
    drawn = torch.Generator().manual_seed(1)
    regions = torch.randn(6, 7, 5, generator=drawn).requires_grad_()
    words, said = torch.randn(6, 4, 5, generator=drawn), torch.arange(4) < torch.tensor([4, 1, 3, 2, 4, 4])[:, None]
    parts, order = small(objectives, name).local, torch.tensor([3, 5, 0, 1, 4, 2])
    loss = parts(regions, words, said)
    (slope,) = torch.autograd.grad(loss, regions)
    assert slope.isfinite().all()
    value, fixed = float(loss.detach()), regions.detach()
    assert float(parts(fixed[order], words[order], said[order])) == pytest.approx(value, rel=1e-5)
    assert float(parts(fixed[:, [6, 0, 2, 1, 5, 3, 4]], words, said)) == pytest.approx(value, rel=1e-5)
    assert float(parts(fixed[:, :, [1, 0, 2, 3, 4]], words[:, :, [1, 0, 2, 3, 4]], said)) == pytest.approx(
        value, rel=1e-5
    )
    assert float(parts(fixed[order], words, said)) != pytest.approx(value, rel=1e-3)
    assert float(parts(fixed - 1e-3 * slope / slope.norm(), words, said)) < value
