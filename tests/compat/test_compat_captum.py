"""Captum's and Quantus' explanation functions as attributions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients
from torch import nn

from seewhy import compat
from seewhy.attributions.input_x_gradient import InputXGradient as OurInputXGradient
from seewhy.classifiers.unfitted import Pretrained
from seewhy.errors import InputError
from seewhy.explanation.base import Where
from seewhy.heads.head import Target
from seewhy.metrics.base import Case
from seewhy.metrics.randomised import ModelRandomisation
from tiny import noise, tiny_cnn


def test_captum_and_quantus_explanations_are_attributions_with_cards() -> None:
    model = Pretrained().build(tiny_cnn())
    look, target = model.encoder.encode(noise(3)), Target(torch.tensor([0, 3, 1]))
    module = compat.ClassifierModule(model)
    captum = compat.from_captum(InputXGradient(module).attribute)
    leaf = noise(3).requires_grad_()
    target(model.head(model.encoder.head(model.encoder.trunk(leaf)))).sum().backward()
    expected = (leaf * leaf.grad).sum(1).detach()
    torch.testing.assert_close(captum(model, look, target), expected)

    def quantus(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **options: object) -> np.ndarray:
        x = torch.from_numpy(inputs).requires_grad_()
        model(x)[range(len(x)), targets].sum().backward()
        assert options == {"method": "Saliency"}
        return (x * x.grad).sum(1, keepdim=True).detach().numpy()

    torch.testing.assert_close(compat.from_quantus(quantus, method="Saliency")(model, look, target), expected)
    integrated = compat.from_captum(IntegratedGradients(module).attribute, n_steps=8)
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    why = model.explain(picture, where=integrated)
    assert isinstance(why.where, Where)
    assert (why.where.method, why.where.heat.shape) == ("captum", (32, 32))
    assert why.where.deletion is not None
    assert "captum" in why.to_html()


def test_a_captum_class_is_judged_on_the_copy_that_forgets() -> None:
    """As our own method of that name is; a function bound to the whole network cannot be."""
    model = Pretrained().build(tiny_cnn())
    pixels = noise(1)
    look, target = model.encoder.encode(pixels), Target(torch.tensor([1]))
    ours, theirs = OurInputXGradient(), compat.from_captum(InputXGradient)
    maps = torch.cat([method(model, look, target) for method in (ours, theirs)])
    case = Case.of(model, pixels[0], 1, methods=[ours, theirs])
    mine, captums = ModelRandomisation().measure(case, maps)
    assert captums.value == pytest.approx(mine.value, abs=1e-4)
    assert captums.value < 0.9
    bound = compat.from_captum(InputXGradient(compat.ClassifierModule(model)).attribute)
    with pytest.raises(
        InputError, match="from_captum needs a class, got a function that is bound to the original network"
    ):
        ModelRandomisation().measure(replace(case, methods=[bound]), maps[:1])


@pytest.mark.parametrize("wrap", [compat.from_captum, compat.from_quantus])
def test_what_a_function_cannot_explain_is_refused(wrap: object) -> None:
    model = Pretrained().build(tiny_cnn())
    look, zero = model.encoder.encode(noise(2)), torch.tensor([0, 0])
    for target in (Target(zero, zero + 1), lambda logits: logits[:, 0]):
        with pytest.raises(InputError, match="function explains the logit of one class"):
            wrap(lambda *_, **__: None)(model, look, target)
    with pytest.raises(InputError) as caught:
        wrap(lambda *_, **__: np.zeros((1, 32, 32)))(model, look, Target(zero))
    assert "function must return maps (2, c, h, w) or (2, h, w) for 2 pictures, got (1, 32, 32)." in str(caught.value)
