"""Every registered metric: bounds, repeatability, settings, and a model that it leaves as found."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from registered import check_class, small
from seewhy.attributions.grad_cam import GradCAM
from seewhy.classifiers.unfitted import Pretrained
from seewhy.errors import InputError
from seewhy.heads.head import Target
from seewhy.metrics import Metric, metrics
from seewhy.metrics.base import Case
from seewhy.metrics.controls import centred_gaussian, uniform_map
from tiny import noise, tiny_cnn

MODEL = Pretrained().build(tiny_cnn())
METHODS = (GradCAM(), centred_gaussian, uniform_map)


def case(methods: Any = METHODS) -> tuple[Case, Tensor]:
    pixels = noise(1)
    look = MODEL.encoder.encode(pixels)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8:20, 10:30] = True
    maps = [torch.nn.functional.interpolate(m(MODEL, look, Target(torch.tensor([1])))[None], (32, 32)) for m in methods]
    return Case.of(MODEL, pixels[0], 1, methods=methods, mask=mask), torch.cat(maps)[:, 0]


@pytest.fixture(params=list(metrics))
def metric(request: pytest.FixtureRequest) -> Metric:
    found: Metric = small(metrics, request.param)
    return found


@pytest.mark.parametrize("name", [*metrics])
def test_class_attributes_and_file_name(name: str) -> None:
    check_class(metrics, name, "sign")
    cls = metrics[name]
    assert cls.family in ("faithfulness", "localisation", "randomisation", "robustness", "complexity")
    assert isinstance(cls.higher_is_better, bool)
    assert cls.bounds[0] < cls.bounds[1]


def test_a_score_a_map_within_bounds_with_its_settings(metric: Metric) -> None:
    given, maps = case()
    found = metric.measure(given, maps)
    assert len(found) == 3
    for one in found:
        assert math.isfinite(one.value)
        assert metric.bounds[0] - 1e-6 <= one.value <= metric.bounds[1] + 1e-6
        assert one.settings["metric"] == metric.name
        assert one.settings["target"] == 1
        assert one.settings["sign"] == metric.sign
        assert one.settings["size"] == [32, 32]
        assert one.settings["reads"] in ("probability", "logit", "map")
    together = torch.tensor([one.sums for one in found]).mean(0)
    assert math.isfinite(float(metric.combine(together)))
    alone = torch.tensor(found[0].sums, dtype=torch.double)
    assert float(metric.combine(alone)) == pytest.approx(found[0].value, abs=1e-6)


def test_same_seed_same_score_and_maps_do_not_touch_each_other(metric: Metric) -> None:
    given, maps = case()
    before = {k: v.clone() for k, v in MODEL.encoder.module.state_dict().items()}
    rng = torch.get_rng_state()
    together = metric.measure(given, maps)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in MODEL.encoder.module.state_dict().items())
    assert metric.measure(given, maps) == together
    for i in range(3):
        alone = metric.measure(replace(given, methods=METHODS[i : i + 1]), maps[i : i + 1])[0]
        assert alone.value == pytest.approx(together[i].value, abs=1e-5)


def test_batch_size_changes_nothing(metric: Metric) -> None:
    if not hasattr(metric, "batch_size"):
        return
    given, maps = case()
    values = [one.value for one in metric.measure(given, maps)]
    again = [one.value for one in replace(metric, batch_size=5).measure(given, maps)]
    assert again == pytest.approx(values, abs=1e-5)


def test_no_more_pictures_at_once_than_batch_size(metric: Metric) -> None:
    if not hasattr(metric, "batch_size"):
        return
    largest = 0

    def watch(function: Any) -> Any:
        def watched(pixels: Tensor) -> Tensor:
            nonlocal largest
            largest = max(largest, len(pixels))
            return function(pixels)

        return watched

    given, maps = case()
    given = replace(given, probability=watch(given.probability), logits=watch(given.logits))
    replace(metric, batch_size=4).measure(given, maps)
    assert largest <= 4


def test_what_is_missing_is_named(metric: Metric) -> None:
    given, maps = case()
    for name in metric.requires:
        with pytest.raises(InputError, match=rf"^The metric {metric.name} needs `{name}`\. Pass {name}=… to Case\.$"):
            metric.measure(replace(given, **{name: None}), maps)


def test_maps_that_are_not_finite_are_refused(metric: Metric) -> None:
    given, maps = case()
    with pytest.raises(InputError) as caught:
        metric.measure(given, maps / 0)
    assert str(caught.value) == f"Maps must be finite, but {metric.name} got NaN or infinite values."


@pytest.mark.parametrize("name", ["deletion", "insertion", "pixel_flipping", "road", "irof"])
def test_the_scale_of_the_map_does_not_count(name: str) -> None:
    given, maps = case()
    metric = small(metrics, name)
    assert metric.measure(given, 4 * maps) == metric.measure(given, maps)
