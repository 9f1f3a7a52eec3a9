"""A card writes a method's name as its class says that its paper does."""

from __future__ import annotations

import pytest

from seewhy.attributions import attributions
from seewhy.attributions.grad_cam import GradCAM
from seewhy.classifiers import classifiers
from seewhy.prototypes import prototypes
from seewhy.report.page import method_name


def test_a_family_that_knows_no_spelling_hides_none() -> None:
    """A classifier and its map may have one name; whichever family was loaded first."""
    assert "comet" in classifiers
    assert method_name("comet") == "COMET"


def test_names_are_those_of_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert method_name("grad_cam_plus_plus at blocks.4") == "Grad-CAM++ at blocks.4"
    assert prototypes["epic"].spelt == "EPIC"
    assert (method_name("epic"), method_name("comet")) == ("EPIC", "COMET")
    assert (method_name("gradient_shap"), method_name("of_nobody")) == ("gradient shap", "of nobody")
    monkeypatch.setattr(attributions["grad_cam"], "spelt", "GRAD")
    assert method_name(GradCAM.name) == "GRAD"
