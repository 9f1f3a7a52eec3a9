"""A method's fields by name: what the command line writes, and what it must refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from seewhy import registry
from seewhy.attributions import Attribution, attributions
from seewhy.attributions.attention_rollout import AttentionRollout
from seewhy.attributions.grad_cam import GradCAM
from seewhy.attributions.occlusion import Occlusion
from seewhy.attributions.rise import RISE
from seewhy.catalogue import listing
from seewhy.classifiers.unfitted import Pretrained
from seewhy.cli import app
from seewhy.cli.settings import SETTINGS
from seewhy.errors import InputError, UnknownNameError
from seewhy.evidence.explain import ExplainOptions
from seewhy.parameters import configured, settings_of, value_of
from seewhy.scale.work import Embed
from tiny import tiny_cnn


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (RISE, {"n_masks": "20", "p": "0.25", "masks": " stratified ", "centred": "True"}),
        (RISE, {"n_masks": 20, "p": 0.25, "masks": "stratified", "centred": True}),
        (RISE(p=0.25), {"n_masks": "20", "masks": "stratified", "centred": "true"}),
    ],
)
def test_values_and_texts_set_the_same_fields(given: Any, expected: dict[str, Any]) -> None:
    assert configured(given, expected) == RISE(n_masks=20, p=0.25, masks="stratified", centred=True)


def test_none_and_whole_numbers() -> None:
    assert configured(Occlusion, {"window": "none", "stride": "8", "fill": "1"}) == Occlusion(stride=8, fill=1.0)
    assert configured(GradCAM, {"layer": "none"}) == GradCAM()
    assert configured(GradCAM, {"layer": "blocks.4"}) == GradCAM(layer="blocks.4")
    assert configured(GradCAM, {}) == GradCAM()
    assert type(configured(Occlusion, {"fill": 1}).fill) is float


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (RISE, {"n_masks": "2e3"}, "`n_masks` of rise must be a whole number, got 2e3. See: seewhy methods rise"),
        (RISE, {"n_masks": True}, "`n_masks` of rise must be a whole number, got true. See: seewhy methods rise"),
        (RISE, {"n_masks": 2.5}, "`n_masks` of rise must be a whole number, got 2.5. See: seewhy methods rise"),
        (RISE, {"p": "nan"}, "`p` of rise must be a number, got nan. See: seewhy methods rise"),
        (RISE, {"centred": "1"}, "`centred` of rise must be true or false, got 1. See: seewhy methods rise"),
        (
            AttentionRollout,
            {"head_fusion": "sum"},
            "`head_fusion` of attention_rollout must be mean, max or min, got sum. See: seewhy methods "
            "attention_rollout",
        ),
        (
            Occlusion,
            {"window": "wide"},
            "`window` of occlusion must be a whole number or none, got wide. See: seewhy methods occlusion",
        ),
    ],
)
def test_a_value_of_another_kind_is_refused(method: type[Attribution], given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        configured(method, given)
    assert str(error.value) == message


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as error:
        configured(GradCAM, {"counterfactal": "true"})
    assert str(error.value) == (
        "There is no setting of grad_cam called 'counterfactal'. Did you mean 'counterfactual'?"
    )


def test_what_a_method_refuses_itself_stays_its_own() -> None:
    with pytest.raises(InputError, match=r"^`n_masks` of rise must be "):
        configured(RISE, {"n_masks": "1"})


@pytest.mark.parametrize("name", sorted(attributions))
def test_every_default_can_be_written_and_read_back(name: str) -> None:
    method = attributions[name]
    written = {s.name: s.default for s in settings_of(method)}
    assert configured(method, written) == configured(method, {})
    assert all(s.kind and s.default for s in settings_of(method))


def test_options_carry_settings_in_any_order_and_with_a_layer() -> None:
    one = ExplainOptions(where="rise", settings={"p": "0.3", "n_masks": "9"})
    assert one == ExplainOptions(where="rise", settings={"n_masks": "9", "p": "0.3"})
    assert hash(one) == hash(ExplainOptions(where="rise", settings=(("p", "0.3"), ("n_masks", "9"))))
    assert one.method() == RISE(n_masks=9, p=0.3)
    both = ExplainOptions(where="grad_cam", settings={"counterfactual": "true"}, layer="1")
    assert both.method() == GradCAM(layer="1", counterfactual=True)
    assert both.label(both.method()) == "grad_cam at 1 with counterfactual=true"
    with pytest.raises(InputError, match=r"^`layer` must be given once, got layer='1' and a setting"):
        ExplainOptions(where="grad_cam", settings={"layer": "2"}, layer="1").method()


def test_a_counterfactual_map_is_named_and_measured_as_what_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    classifier = Pretrained().build(tiny_cnn())
    target = classifier.predict(picture).label
    plain = classifier.explain(picture, where="grad_cam", target=target)
    turned = classifier.explain(picture, where="grad_cam", target=target, settings={"counterfactual": True})
    assert turned.where.target == f"anything but {target}"
    assert turned.where.method == "grad_cam with counterfactual=True"
    np.testing.assert_allclose(turned.where.heat, -plain.where.heat)
    # Both watch one curve's two sides: what the class loses, anything else gains.
    assert turned.where.deletion_curve[0] == pytest.approx(1 - plain.where.deletion_curve[0], abs=1e-5)
    with pytest.raises(InputError, match=r"^`contrast` cannot be combined with `counterfactual`"):
        classifier.explain(picture, where="grad_cam", contrast="rust", settings={"counterfactual": True})


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(InputError, match="must be a whole number of at least 1"):
        configured(AttentionRollout, {"batch_size": "0"})


def test_what_an_error_says_to_see_is_there() -> None:
    known = {row["name"] for row in listing()}
    for family in registry._families:
        for name in family:
            with pytest.raises(InputError) as error:
                value_of(name, "n", "many", int)
            see = f". See: seewhy methods {name}" if name in known else "."
            assert str(error.value).endswith(f"must be a whole number, got many{see}"), name
    for command in SETTINGS:
        with pytest.raises(InputError) as error:
            value_of(f"seewhy {command}", "n", "many", int)
        assert str(error.value).endswith(f" See: seewhy {command} --help")
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0, command
    with pytest.raises(InputError, match=r"whole number of at least 1, got 0. Leave it out to use 32\.$"):
        configured(Embed, {"batch_size": "0"})
