"""The attribution shows the very mask that the decision was made through, and nothing of other classifiers."""

from __future__ import annotations

import pytest
import torch

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.unfitted import Pretrained
from seewhy.errors import InputError
from seewhy.heads.head import Target
from seewhy.learning.self_explaining.comet.network import COMETMask, COMETNetwork
from seewhy.learning.self_explaining.comet.recipe import COMET
from seewhy.pictures.samples import load_samples
from tiny import class_folders, noise, tiny_cnn

TARGET = Target(torch.tensor([0, 2, 1]))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folders = class_folders(tmp_path_factory.mktemp("data"), 4)
    return COMET(n_steps=2, batch_size=4, n_bank=6).fit(tiny_cnn(), load_samples(folders))


def test_the_map_is_what_the_decision_was_made_through(model: Classifier) -> None:
    network = model.network
    assert isinstance(network, COMETNetwork)
    pixels = noise(3)
    mask = COMETMask()(model, model.encoder.encode(pixels), TARGET)
    assert mask.shape == (3, 32, 32)
    with torch.no_grad():
        by_hand = model.head(network.predictor.image(pixels * mask[:, None])).softmax(1)
    torch.testing.assert_close(model.probabilities(pixels), by_hand, atol=1e-6, rtol=1e-5)


def test_the_map_is_of_no_class(model: Classifier) -> None:
    look = model.encoder.encode(noise(3))
    assert torch.equal(COMETMask()(model, look, TARGET), COMETMask()(model, look, Target(torch.tensor([1, 1, 0]))))
    with pytest.raises(InputError) as caught:
        COMETMask()(model, look, Target(TARGET.index, torch.tensor([1, 1, 0])))
    assert str(caught.value) == (
        "comet does not support contrasts, because its mask is the same for every class. Leave the "
        "contrast out, or use grad_cam."
    )


def test_other_classifiers_have_no_mask() -> None:
    model = Pretrained().build(tiny_cnn())
    with pytest.raises(InputError) as caught:
        COMETMask()(model, model.encoder.encode(noise(3)), TARGET)
    assert str(caught.value) == (
        "comet can only explain a comet classifier. Use grad_cam, or fit a classifier with: seewhy fit --method comet"
    )


def test_it_leaves_the_model_as_it_was(model: Classifier) -> None:
    look = model.encoder.encode(noise(3))
    before = {n: t.clone() for n, t in model.encoder.module.state_dict().items()}
    state = torch.get_rng_state()
    first = COMETMask()(model, look, TARGET)
    assert torch.equal(first, COMETMask()(model, look, TARGET))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in model.encoder.module.state_dict().items())
    alone = torch.cat([COMETMask()(model, look[i : i + 1], Target(TARGET.index[i : i + 1])) for i in range(3)])
    torch.testing.assert_close(alone, first, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("method", ["grad_cam", "layer_cam", "integrated_gradients", "occlusion", "ablation_cam"])
def test_every_other_method_works_on_it(model: Classifier, method: str) -> None:
    from tiny import picture

    why = model.explain(picture("moss", 0), where=method, measure=False)
    assert why.where.heat.shape[0] >= 8
