"""Networks whose features are huge, or differ by next to nothing: what is saved can be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import seewhy
from seewhy.classifiers.linear.recipe import Linear
from seewhy.trust.gaussian import Moments
from tiny import CLASSES, class_folders, tiny_cnn


@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_a_classifier_on_features_of_any_size_is_loaded_as_it_was(scale: float, tmp_path: Path) -> None:
    encoder = tiny_cnn()
    with torch.no_grad():
        last = [p for p in encoder.trunk.parameters() if p.ndim > 1][-1]
        last.mul_(scale)
    samples = seewhy.load_samples(class_folders(tmp_path / "data", 12, CLASSES[:3], side=48))
    made = Linear(n_crops=0).fit(encoder, samples)
    again = seewhy.load(made.save(tmp_path / "model"), encoder=encoder)
    name = samples.items[0].image
    ours, theirs = made.predict(name).decision, again.predict(name).decision
    assert ours is not None
    assert theirs is not None
    assert theirs.verdict == ours.verdict
    assert made.measured_trust is not None
    assert made.measured_trust.gaussian.form.isfinite().all()


def test_pictures_that_hardly_differ_have_a_finite_opinion() -> None:
    """Inverse covariances of 10⁸, more than half precision holds."""
    draw = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(1 + 1e-4 * torch.randn(40, 8, generator=draw), dim=1)
    labels = torch.arange(40) % 2
    found = Moments.of(x, labels, torch.arange(40) % 4, torch.zeros(2, dtype=torch.long)).gaussian()
    assert found.form.abs().max() > 65504
    assert found.form.isfinite().all()
    assert found.strangeness(x, labels).isfinite().all()
