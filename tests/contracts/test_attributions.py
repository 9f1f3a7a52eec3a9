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

from seewhy.attributions import Attribution, attributions
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.pretrained import Pretrained
from seewhy.encoders.base import Encoder
from seewhy.errors import InputError
from seewhy.heads.head import Head, Target
from tiny import noise, tiny_cnn, tiny_tokens
from tiny_transformer import tiny_vit

ENCODERS = {"cnn": tiny_cnn(), "tokens": tiny_tokens(), "vit": tiny_vit()}
READS_ATTENTION = ("attention_rollout", "chefer")
SMALL: dict[str, dict[str, int]] = {
    "rise": {"n_masks": 40},
    "smooth_grad": {"n_samples": 6},
    "integrated_gradients": {"n_steps": 6},
    "gradient_shap": {"n_samples": 6},
}
READY = [name for name in attributions if not attributions[name].needs_training and not attributions[name].recipe]
"""Those that must be trained first, or explain one recipe alone, are held to the same in their own tests."""
TARGET = Target(torch.tensor([0, 3, 1]))
CONTRAST = Target(torch.tensor([0, 3, 1]), torch.tensor([2, 2, 0]))


@pytest.fixture(params=ENCODERS)
def model(request: pytest.FixtureRequest, method: Attribution) -> Classifier:
    if method.name in READS_ATTENTION and request.param != "vit":
        pytest.skip("test_transformers sees that it refuses")
    return Pretrained().build(ENCODERS[request.param])


def make_method(name: str) -> Attribution:
    """With defaults, but few samples."""
    return attributions[name](**SMALL.get(name, {}))


@pytest.fixture(params=READY)
def method(request: pytest.FixtureRequest) -> Attribution:
    return make_method(request.param)


def test_class_attributes_and_file_name() -> None:
    for name in attributions:
        cls = attributions[name]
        assert cls.name == name
        assert name in cls.__module__.split(".")[-2:], "a file or a folder of its own name"
        assert all(isinstance(getattr(cls, a), str) and getattr(cls, a) for a in ("paper", "needs", "cost"))
        assert isinstance(cls.stochastic, bool)
        assert cls.__doc__


@pytest.mark.parametrize("target", [TARGET, CONTRAST], ids=["target", "contrast"])
def test_shape_finite_and_repeatable(method: Attribution, model: Classifier, target: Target) -> None:
    look = model.encoder.look(noise(3))
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
    look = model.encoder.look(noise(3))
    whole = method(model, look, CONTRAST)
    for i in range(3):
        one = Target(CONTRAST.index[i : i + 1], CONTRAST.against[i : i + 1])
        torch.testing.assert_close(method(model, look[i : i + 1], one)[0], whole[i], atol=1e-5, rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(3)), encoder=st.sampled_from(list(ENCODERS)), name=st.sampled_from(READY))
def test_permuting_the_batch_permutes_the_maps(order: list[int], encoder: str, name: str) -> None:
    encoder = "vit" if name in READS_ATTENTION else encoder
    model, method = Pretrained().build(ENCODERS[encoder]), make_method(name)
    pixels = noise(3)
    straight = method(model, model.encoder.look(pixels), TARGET)
    turned = method(model, model.encoder.look(pixels[order]), Target(TARGET.index[order]))
    torch.testing.assert_close(turned, straight[order], atol=1e-6, rtol=1e-5)


def test_a_constant_on_all_logits_changes_nothing(method: Attribution, model: Classifier) -> None:
    look = model.encoder.look(noise(3))
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
@pytest.mark.parametrize("make", [tiny_cnn, tiny_tokens, tiny_vit])
def test_the_model_is_left_as_found(
    method: Attribution, make: Callable[[], Encoder], around: Callable[[], torch.no_grad]
) -> None:
    if method.name in READS_ATTENTION and make is not tiny_vit:
        pytest.skip("test_transformers sees that it refuses")
    encoder = make()
    encoder.module.requires_grad_(True)
    next(encoder.module.parameters()).grad = torch.ones_like(next(encoder.module.parameters()))
    model = Pretrained().build(encoder)
    with around():
        before = state(encoder)
        look = encoder.look(noise(3))
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
        (Target(torch.tensor([0])), "1 targets were given for 3 pictures. Give one a picture."),
        (Target(torch.tensor([0, 4, 1])), "A target is outside 0…3. Give the index of one of the classes."),
        (Target(torch.tensor([0, -1, 1])), "A target is outside 0…3. Give the index of one of the classes."),
        (
            Target(TARGET.index, torch.tensor([0, 9, 1])),
            "A contrast is outside 0…3. Give the index of one of the classes.",
        ),
    ],
)
def test_wrong_targets_are_refused(method: Attribution, model: Classifier, target: Target, message: str) -> None:
    with pytest.raises(InputError) as caught:
        method(model, model.encoder.look(noise(3)), target)
    assert str(caught.value) == message


def test_numbers_that_are_not_finite_are_refused(method: Attribution) -> None:
    encoder = tiny_vit() if method.name in READS_ATTENTION else tiny_cnn()
    pixels = noise(1)
    pixels[0, 0, 0, 0] = torch.nan
    model = Pretrained().build(encoder)
    with pytest.raises(InputError) as caught:
        method(model, encoder.look(pixels), Target(torch.tensor([0])))
    assert (
        str(caught.value) == f"{method.name} gives numbers that are not finite on these features. Try --engine torch."
    )
