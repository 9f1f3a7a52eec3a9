"""Two classes, and networks whose features are huge or differ by next to nothing: what is saved can be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import seewhy
from seewhy.trust.strangeness import Gaussian
from tiny import CLASSES, class_folders, tiny_cnn


@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_a_classifier_on_features_of_any_size_is_loaded_as_it_was(scale: float, tmp_path: Path) -> None:
    encoder = tiny_cnn()
    with torch.no_grad():
        last = [p for p in encoder.trunk.parameters() if p.ndim > 1][-1]
        last.mul_(scale)
    samples = seewhy.load_samples(class_folders(tmp_path / "data", 12, CLASSES[:3], side=48))
    made = seewhy.fit(samples, encoder, n_crops=0)
    again = seewhy.load(made.save(tmp_path / "model"), encoder=encoder)
    name = samples.items[0].image
    ours, theirs = made.predict(name).decision, again.predict(name).decision
    assert ours is not None
    assert theirs is not None
    assert theirs.verdict == ours.verdict
    assert made.measured_trust is not None
    assert made.measured_trust.gaussian.within.isfinite().all()


def test_two_classes_are_saved_and_judged_as_before(tmp_path: Path) -> None:
    """Good or faulty: nothing can be left out to play the unknown, so that the card has no figure of near unknowns."""
    samples = seewhy.load_samples(class_folders(tmp_path / "data", 20, CLASSES[:2], side=48))
    made = seewhy.fit(samples, tiny_cnn(), n_crops=0)
    assert made.trust is not None, "what is measured is saved"
    again = seewhy.load(made.save(tmp_path / "model"), encoder=tiny_cnn())
    ours, theirs = (m.predict(samples.items[0].image).decision for m in (made, again))
    assert ours is not None
    assert theirs is not None
    assert theirs.verdict == ours.verdict != "not measured"
    assert theirs.unknowns is not None
    assert theirs.unknowns.near is None


def test_pictures_that_hardly_differ_have_a_finite_opinion() -> None:
    """The ridge keeps roots of inverse covariances within what half precision holds."""
    draw = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(1 + 1e-5 * torch.randn(40, 8, generator=draw), dim=1)
    labels = torch.arange(40) % 2
    found = Gaussian.fit(x, labels, 2)
    assert 2e4 < found.within.abs().max() < 65504
    assert found.within.isfinite().all()
    assert found.relative(x).isfinite().all()
