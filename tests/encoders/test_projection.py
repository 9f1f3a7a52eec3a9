"""Projection heads: weights by the formula, underflow refused or said, and a head that comes back from its facts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from seewhy.errors import InputError
from seewhy.learning.encoders.projection import Form, Projection, Reweighted, restored
from seewhy.progress import Progress


def test_the_fixed_one_weighs_each_coordinate_less() -> None:
    head = Projection("fixed", kappa=2.0).build(4)
    assert isinstance(head, Reweighted)
    assert head(torch.ones(1, 4)).tolist() == [[1.0, 0.5, 0.25, 0.125]]
    assert [*head.parameters()] == []
    assert Projection("fixed", kappa=1.0).build(3).weight.tolist() == [1.0, 1.0, 1.0]


def test_kappa_follows_from_how_many_count() -> None:
    assert Projection("fixed").kappa_for(64) == pytest.approx(1000 ** (1 / 32))
    assert Projection("fixed", effective=10).kappa_for(64) == pytest.approx(1000**0.1)
    assert Projection("fixed", kappa=1.05, effective=10).kappa_for(64) == 1.05
    head = Projection("fixed", effective=10).build(16)
    assert isinstance(head, Reweighted)
    assert head.weight[10].item() == pytest.approx(1e-3)


def test_weights_that_vanish_are_refused_and_those_that_nearly_do_are_said() -> None:
    with pytest.raises(InputError) as caught:
        Projection("fixed", kappa=1.05).build(2048)
    assert str(caught.value) == (
        "`kappa` must be at most 1.0435 for a fixed projection of 2048 coordinates, got 1.05: the last weights would "
        "be 0 in single precision. Lower `kappa`, or raise `effective`."
    )
    assert math.isfinite(Projection("fixed", kappa=1.0435).build(2048).weight[-1].item())
    progress = Progress()
    Projection("fixed", kappa=1.5).build(64, progress)
    assert progress.notes == [
        (
            "29 of 64 coordinates of the fixed projection have weights below a millionth of the first weight and "
            "will hardly learn; lower kappa, or raise effective"
        )
    ]
    quiet = Progress()
    Projection("fixed").build(64, quiet)
    Projection("fixed", kappa=1.0).build(64, quiet)
    Projection("mlp").build(64, quiet)
    assert quiet.notes == []


@pytest.mark.parametrize(
    ("form", "width", "n"),
    [("none", 6, 0), ("linear", 3, 6 * 3 + 3), ("mlp", 3, 6 * 6 + 6 + 6 * 3 + 3), ("fixed", 6, 0)],
)
def test_widths_weights_and_back_from_facts(form: Form, width: int, n: int) -> None:
    how = Projection(form, width=3)
    head = how.build(6)
    assert how.out_width(6) == width == head(torch.ones(2, 6)).shape[1]
    assert sum(p.numel() for p in head.parameters()) == n
    again = restored(how.facts(6))
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again(torch.ones(1, 6)), head(torch.ones(1, 6)))
    assert type(again) is type(head)


def test_an_mlp_bends_and_a_normalised_one_is_wider_and_has_the_batchs_scale() -> None:
    head, x = Projection("mlp", 3).build(6), torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    middle = head(torch.zeros(1, 6))
    assert not torch.allclose(head(x) + head(-x), 2 * middle, atol=1e-3)
    wide = Projection("mlp", 3, normalised=True).build(6).train()
    assert [p.shape[0] for p in wide.parameters()] == [12, 12, 12, 12, 3, 3]
    torch.testing.assert_close(wide(100 * x), wide(x), atol=0.05, rtol=0.05)


def test_a_fixed_head_is_in_its_facts() -> None:
    how = Projection("fixed", effective=2)
    assert torch.equal(restored(how.facts(6)).weight, how.build(6).weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"behind": 10**9}, {"width": 0}, {"width": "3"}, {"form": "wide"}, {"kappa": 0.5}])
def test_facts_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"its behind, width are|^`projection` must be|`kappa` must be"):
        restored({**Projection("fixed").facts(6), **wrong})


@pytest.mark.parametrize("wrong", [{"form": "wide"}, {"width": 0}, {"kappa": 0.9}, {"effective": 0.0}])
def test_what_is_no_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"`(projection|kappa)` must be .*, got .* and .*\.$"):
        Projection(**wrong)
