"""Beside other programs torch's threads spin for cores that are not free: there is one while another engine runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.encoders.base import Encoder
from seewhy.encoders.stream import encode_stream
from seewhy.threads import beside, each_beside, for_torch
from tiny import COLOURS, SIDE, tiny_cnn, tiny_tokens

CALLERS = 3
NO_WORK = {"alias", "detach", "lift_fresh", "permute", "unsqueeze", "view"}


class Watch(TorchDispatchMode):
    """Notes on how many threads each operation may run, convolutions apart."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[int, set[str]] = {}
        self.networks: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        n = torch.get_num_threads()
        name = str(func).split(".")[1]
        if name == "convolution":
            self.networks.add(n)
        elif name not in NO_WORK:
            self.steps.setdefault(n, set()).add(name)
        return func(*args, **(kwargs or {}))


class Other:
    """An engine that is not torch, as far as anybody can tell."""

    name, precision = "other", "float32"

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __call__(self, pixels: Tensor) -> Tensor:
        answer: Tensor = torch.from_numpy(_in_numpy(self.encoder, pixels))
        return answer


def _in_numpy(encoder: Encoder, pixels: Tensor) -> np.ndarray:
    with torch.utils._python_dispatch._disable_current_modes(), torch.no_grad():
        features: np.ndarray = encoder.trunk(pixels).numpy()
        return features


def classifier(engine: str = "other", make: Any = tiny_cnn) -> Classifier:
    encoder = make()
    if engine == "other":
        own = Other(encoder)
        encoder._engine = lambda: own
    return seewhy.pretrained(encoder)


PICTURES = [np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in COLOURS.values()]
PICTURES += [np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8) for i in range(4)]


@pytest.fixture(autouse=True)
def callers_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(CALLERS)
    yield
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == CALLERS, "the caller's threads were not put back"


@pytest.mark.parametrize(
    "call",
    [
        lambda c: list(c.predict_all(PICTURES)),
        lambda c: c.predict(PICTURES[0]),
        lambda c: c.predict_proba(PICTURES),
        lambda c: list(c.explain_all(PICTURES, measure=False)),
        lambda c: c.explain(PICTURES[:3]),
        lambda c: list(c.explain_all(PICTURES[:2], where="rise", settings={"n_masks": 8}, measure=False)),
        lambda c: list(encode_stream(c.encoder, PICTURES)),
        lambda c: c.probabilities(c.encoder.pixels(PICTURES)),
    ],
    ids=["predict_all", "predict", "predict_proba", "explain_all", "card", "rise", "encode_stream", "probabilities"],
)
def test_one_thread_beside_another_engine(call: Any) -> None:
    model, watch = classifier(), Watch()
    _ = model.measured_trust, model.encoder.engine
    with watch:
        call(model)
    assert set(watch.steps) == {1}, watch.steps.get(CALLERS)


def test_whoever_takes_results_has_all_threads_between_them() -> None:
    model = classifier()
    for stream in (model.predict_all(PICTURES), model.explain_all(PICTURES, measure=False)):
        assert {torch.get_num_threads() for _ in stream} == {CALLERS}
    dropped = model.explain_all(PICTURES, measure=False)
    next(iter(dropped))
    del dropped


def test_threads_are_put_back_after_an_error() -> None:
    def broken() -> Any:
        assert torch.get_num_threads() == 1
        raise ValueError("broken")
        yield

    with pytest.raises(ValueError, match="broken"):
        list(each_beside("openvino", broken()))
    with pytest.raises(ValueError, match="broken"), beside("openvino"), for_torch():
        raise ValueError("broken")


def test_a_dropped_stream_is_closed() -> None:
    ended = []

    def counting() -> Any:
        try:
            yield from range(3)
        finally:
            ended.append(torch.get_num_threads())

    stream = each_beside("openvino", counting())
    next(stream)
    stream.close()
    assert ended == [CALLERS]


def test_torch_keeps_its_threads_where_it_runs_a_network() -> None:
    for model, where in ((classifier("torch"), "grad_cam"), (classifier(), "integrated_gradients")):
        _ = model.measured_trust
        with Watch() as watch:
            model.explain(PICTURES[:1], where=where, measure=False)
        assert watch.networks == {CALLERS}
    tokens = classifier(make=tiny_tokens)
    with Watch() as watch:
        tokens.encoder.encode(tokens.encoder.pixels(PICTURES))
    assert CALLERS in watch.steps, "a head that is a block of the network may use all threads"


def test_contexts_within_one_another() -> None:
    found = []
    with beside("openvino"):
        with for_torch():
            found.append(torch.get_num_threads())
            with beside("openvino"):
                found.append(torch.get_num_threads())
            found.append(torch.get_num_threads())
            with beside("torch"):
                found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())
        with beside("openvino"), for_torch():
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())
    assert found == [CALLERS, 1, CALLERS, CALLERS, 1, CALLERS, 1]
