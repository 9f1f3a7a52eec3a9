"""Every registered attribution, on a mean-pooled CNN, on tokens behind a head that is not linear, and on a ViT."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from registered import ENCODERS, MAKE, check_class, only_on, pairs, small
from seewhy.attributions import Attribution, attributions
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.encoders.base import Encoder
from seewhy.errors import InputError
from seewhy.heads.head import Head, Target
from tiny import noise

BUILT = {name: make() for name, make in MAKE.items()}
READY = [name for name in attributions if not attributions[name].needs_training and not attributions[name].recipe]
"""Those that must be trained first, or explain one recipe alone, are held to the same in their own tests."""
TARGET = Target(torch.tensor([0, 3, 1]))
CONTRAST = Target(torch.tensor([0, 3, 1]), torch.tensor([2, 2, 0]))


@pytest.fixture(params=[*pairs(attributions, READY, tuple(ENCODERS))], ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A method and an encoder it works on; test_transformers sees that those that read attention refuse the others."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def model(pair: tuple[str, str]) -> Classifier:
    return Pretrained().build(BUILT[pair[1]])


@pytest.fixture
def method(pair: tuple[str, str]) -> Attribution:
    found: Attribution = small(attributions, pair[0])
    return found


@pytest.mark.parametrize("name", [*attributions])
def test_class_attributes_and_file_name(name: str) -> None:
    check_class(attributions, name)
    assert isinstance(attributions[name].stochastic, bool)


@pytest.mark.parametrize("target", [TARGET, CONTRAST], ids=["target", "contrast"])
def test_shape_finite_and_repeatable(method: Attribution, model: Classifier, target: Target) -> None:
    look = model.encoder.encode(noise(3))
    first = method(model, look, target)
    height, width = model.encoder.layout.to_grid(look.features).shape[2:]
    assert first.ndim == 3
    assert len(first) == 3
    if not method.needs_pixels:
        assert first.shape[1:] == (height, width)
    assert first.shape[1] >= height
    assert first.shape[2] >= width
    assert first.isfinite().all()
    assert not first.requires_grad
    assert torch.equal(first, method(model, look, target))


def test_one_by_one_is_a_batch(method: Attribution, model: Classifier) -> None:
    look = model.encoder.encode(noise(3))
    whole = method(model, look, CONTRAST)
    for i in range(3):
        one = Target(CONTRAST.index[i : i + 1], CONTRAST.against[i : i + 1])
        torch.testing.assert_close(method(model, look[i : i + 1], one)[0], whole[i], atol=1e-5, rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(3)), pair=st.sampled_from([*pairs(attributions, READY, tuple(ENCODERS))]))
def test_permuting_the_batch_permutes_the_maps(order: list[int], pair: tuple[str, str]) -> None:
    model, method = Pretrained().build(BUILT[pair[1]]), small(attributions, pair[0])
    pixels = noise(3)
    straight = method(model, model.encoder.encode(pixels), TARGET)
    turned = method(model, model.encoder.encode(pixels[order]), Target(TARGET.index[order]))
    torch.testing.assert_close(turned, straight[order], atol=1e-6, rtol=1e-5)


def test_a_constant_on_all_logits_changes_nothing(method: Attribution, model: Classifier) -> None:
    look = model.encoder.encode(noise(3))
    shifted = Classifier(
        model.recipe,
        {},
        model.encoder,
        model.classes,
        Head(model.head.feature, model.head.weight, model.head.bias + 7.5),
    )
    # A logit of 7.5 is itself known to 5e-7 only, and channels may be weighed by differences of two such.
    rounding = 1e-6 * float(model.encoder.layout.to_grid(look.features).abs().sum(1).max())
    found, expected = method(shifted, look, CONTRAST), method(model, look, CONTRAST)
    torch.testing.assert_close(found, expected, atol=max(1e-5, rounding), rtol=1e-5)


def state(encoder: Encoder) -> dict[str, object]:
    """Everything of a model that an explanation could disturb."""
    return {
        "weights": [(n, p.clone()) for n, p in encoder.module.state_dict().items()],
        "grads": [p.grad for p in encoder.module.parameters()],
        "requires_grad": [p.requires_grad for p in encoder.module.parameters()],
        "training": [m.training for m in encoder.module.modules()],
        "hooks": [(len(m._forward_hooks), len(m._backward_hooks)) for m in encoder.module.modules()],
        "grad mode": torch.is_grad_enabled(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1],
        "python": random.getstate(),
    }


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)  # type: ignore[arg-type]
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))  # type: ignore[arg-type]
    return bool(np.all(a == b))


@pytest.mark.parametrize("around", [torch.no_grad, torch.enable_grad], ids=["no_grad", "grad"])
def test_the_model_is_left_as_found(
    method: Attribution, pair: tuple[str, str], around: Callable[[], torch.no_grad]
) -> None:
    encoder = MAKE[pair[1]]()
    encoder.module.requires_grad_(True)
    next(encoder.module.parameters()).grad = torch.ones_like(next(encoder.module.parameters()))
    model = Pretrained().build(encoder)
    with around():
        before = state(encoder)
        look = encoder.encode(noise(3))
        features, pooled = look.features.clone(), look.pooled.clone()
        method(model, look, TARGET)
        after = state(encoder)
    assert [k for k in before if not same(before[k], after[k])] == []
    assert torch.equal(look.features, features)
    assert torch.equal(look.pooled, pooled)
    assert not look.features.requires_grad


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target(torch.tensor([0])), "There must be one target per picture, got 1 for 3 pictures."),
        (
            Target(torch.tensor([0, 4, 1])),
            "A target must be a class index from 0 to 3, got 4.",
        ),
        (
            Target(torch.tensor([0, -1, 1])),
            "A target must be a class index from 0 to 3, got -1.",
        ),
        (
            Target(TARGET.index, torch.tensor([0, 9, 1])),
            "A contrast must be a class index from 0 to 3, got 9.",
        ),
    ],
)
def test_wrong_targets_are_refused(method: Attribution, model: Classifier, target: Target, message: str) -> None:
    with pytest.raises(InputError) as caught:
        method(model, model.encoder.encode(noise(3)), target)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", READY)
def test_numbers_that_are_not_finite_are_refused(name: str) -> None:
    method: Attribution = small(attributions, name)
    encoder = MAKE[(only_on(method) or ("cnn",))[0]]()
    pixels = noise(1)
    pixels[0, 0, 0, 0] = torch.nan
    model = Pretrained().build(encoder)
    with pytest.raises(InputError) as caught:
        method(model, encoder.encode(pixels), Target(torch.tensor([0])))
    assert (
        str(caught.value) == f"The maps of {method.name} have NaN or infinity for these features. Try --engine torch."
    )
