"""Signed power and unit length: values, gradients at zero, and their JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from seewhy.errors import InputError
from seewhy.heads.normalise import Normalise, signed_power


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_values(power: float) -> None:
    x = torch.tensor([-4.0, -0.25, 0.0, 1.0, 6.0])
    torch.testing.assert_close(signed_power(x, power), x.sign() * x.abs().pow(power))


@pytest.mark.parametrize("power", [0.3, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("l2", [False, True])
def test_gradient_is_finite_at_zero(power: float, l2: bool) -> None:
    x = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, -1.0]], requires_grad=True)
    Normalise(power, l2)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_gradient_is_the_derivative(power: float) -> None:
    x = torch.tensor([[0.3, 2.0, -1.0]], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(Normalise(power, True), x)


def test_length_is_one_and_scale_does_not_matter() -> None:
    x = torch.rand(4, 3, 5)
    y = Normalise(0.5, True)(x)
    torch.testing.assert_close(y.norm(dim=-1), torch.ones(4, 3))
    torch.testing.assert_close(Normalise(0.5, True)(7 * x), y)


def test_default_changes_nothing_and_json_round_trips() -> None:
    x = torch.randn(2, 3)
    assert torch.equal(Normalise()(x), x)
    normalise = Normalise(0.5, True)
    assert Normalise(**json.loads(json.dumps(asdict(normalise)))) == normalise


def test_power_must_be_positive() -> None:
    with pytest.raises(InputError, match="`power` of Normalise must be"):
        Normalise(0)
