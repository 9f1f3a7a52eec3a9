"""What the whole process shares stays the caller's, while its threads and SeeWhy's run at the same time."""

from __future__ import annotations

import io
import logging
import random
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy.attributions.gradient_shap import GradientShap
from seewhy.attributions.smooth_grad import SmoothGrad
from seewhy.encoders.convert import quiet
from seewhy.encoders.fence import Stored, building, fenced, silent
from seewhy.learning.adaptation.word_prompts import CoOp
from seewhy.registry import Registry
from seewhy.seeded import seeded
from seewhy.threads import Together, beside, for_torch, map_ahead
from tiny import CLASSES, TRANSFORM, class_folders, picture, tiny_cnn
from tiny_words import opened

PATIENCE = 60.0


def elsewhere(work: Callable[[], Any]) -> Any:
    """The answer of another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(PATIENCE)


class Own:
    """A context in a thread of its own, which is entered and left when the test says so."""

    def __init__(self, context: Any, inside: Callable[[], Any] = lambda: None) -> None:
        self.entered, self.leave, self.found = threading.Event(), threading.Event(), None

        def run() -> None:
            with context:
                self.found = inside()
                self.entered.set()
                self.leave.wait(PATIENCE)

        self.thread = threading.Thread(target=run)

    def enter(self) -> Own:
        self.thread.start()
        assert self.entered.wait(PATIENCE)
        return self

    def exit(self) -> None:
        self.leave.set()
        self.thread.join(PATIENCE)


# Random numbers


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand((), dtype=torch.float64))]


@pytest.mark.parametrize("work", ["load", "fit", "explain", "gradient_shap", "adapt"])
def test_no_number_of_the_callers_comes_twice(work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of the caller draws whenever SeeWhy reads a picture or makes a layer, and after the call."""
    numbers: list[float] = []
    folder, shown = class_folders(tmp_path / "pictures", n=4), picture(CLASSES[0], 1)
    plain = tiny_cnn(engine="torch")
    classifier = seewhy.fit(folder, plain)
    method = CoOp(keep=0.5, epochs=1, batch_size=4, n_bank=0)
    towers = opened()
    jobs: dict[str, Callable[[], Any]] = {
        "load": lambda: seewhy.encoder("lite0", engine="torch").module,
        "fit": lambda: seewhy.fit(folder, plain),
        "explain": lambda: classifier.explain(shown),
        "gradient_shap": lambda: classifier.explain(shown, where="gradient_shap"),
        "adapt": lambda: seewhy.adapt(folder, towers, method=method),
    }
    linear, resting = torch.nn.functional.linear, threading.Event()

    def drawing() -> None:
        while not resting.wait(0.001):
            numbers.extend(draws())

    def beside_it(*given: Any, **more: Any) -> Any:
        numbers.extend(elsewhere(draws))
        return linear(*given, **more)

    monkeypatch.setattr(torch.nn.functional, "linear", beside_it)
    with ExitStack() as stack:
        other = threading.Thread(target=drawing)
        stack.callback(other.join)
        stack.callback(resting.set)
        other.start()
        jobs[work]()
    numbers += [one for _ in range(300) for one in draws()]
    assert len(numbers) > 900
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(20), lambda: torch.randn(20), lambda: torch.randperm(20), lambda: torch.randint(9, (20,)),
        lambda: torch.randint(2, 9, (20,)), lambda: torch.rand_like(torch.zeros(20)),
        lambda: torch.randn_like(torch.zeros(20)), lambda: nn.Linear(4, 5).weight, lambda: nn.Conv2d(2, 2, 3).weight,
        lambda: nn.functional.dropout(torch.ones(40)), lambda: torch.bernoulli(torch.full((20,), 0.5)),
        lambda: torch.multinomial(torch.ones(9), 5), lambda: torch.normal(torch.zeros(20), 2.0),
        lambda: nn.init.trunc_normal_(torch.empty(20)), lambda: torch.empty(20).exponential_(),
        lambda: nn.TransformerEncoderLayer(8, 2, dropout=0.5)(torch.ones(2, 3, 8)),
        lambda: torch.rand(3, dtype=torch.float64, device="cpu"),
    ],
)  # fmt: skip
def test_seeded_draws_as_manual_seed_does_and_moves_nothing(draw: Callable[[], torch.Tensor]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        expected = [draw(), draw()]
        torch.manual_seed(12)
        before, other = torch.get_rng_state(), Own(seeded(5), lambda: torch.rand(3)).enter()
        with seeded(11):
            found = [draw()]
            assert elsewhere(torch.get_rng_state).equal(before)
            found.append(draw())
        other.exit()
        assert torch.get_rng_state().equal(before)
    assert all(map(torch.equal, found, expected))
    assert not torch.equal(*expected)


def test_given_generators_are_used() -> None:
    with seeded(3):
        found = torch.rand(4, generator=torch.Generator().manual_seed(8))
    assert found.equal(torch.rand(4, generator=torch.Generator().manual_seed(8)))


@pytest.mark.parametrize("method", [SmoothGrad(n_samples=4), GradientShap(n_samples=4)], ids=lambda m: m.name)
def test_a_seed_gives_one_map_in_every_thread(method: Any, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    classifier = seewhy.fit(class_folders(tmp_path, n=4), tiny_cnn(engine="torch"))
    shown = picture(CLASSES[0], 1)
    expected = classifier.explain(shown, where=method).where.heat
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(lambda _: classifier.explain(shown, where=method).where.heat, range(8)))
    assert all(np.allclose(heat, expected, atol=1e-6) for heat in maps)


# torch's defaults


@contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_float64_stays_the_callers_beside_four_threads(tmp_path: Path) -> None:
    """Each thread is inside SeeWhy when the others begin and end, and the caller makes numbers meanwhile."""
    meet, met, kinds = threading.Barrier(4), set[str](), list[torch.dtype]()

    def hook(*_: Any) -> None:
        name = threading.current_thread().name
        if name.startswith("four"):
            if name not in met:
                met.add(name)
                meet.wait(PATIENCE)
            kinds.append(elsewhere(lambda: torch.zeros(1).dtype))

    network = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    encoder = seewhy.from_module(network, transform=TRANSFORM, engine="torch")
    classifier = seewhy.pretrained(encoder)
    next(m for m in encoder.trunk.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(hook)
    shown = [picture(CLASSES[i % 3], i) for i in range(4)]
    expected = [classifier.explain(one, where="occlusion").where.heat for one in shown]
    with double(), ThreadPoolExecutor(4, thread_name_prefix="four") as pool:
        found = [pool.submit(classifier.explain, one, where="occlusion") for one in shown]
        maps = [one.result(PATIENCE).where.heat for one in found]
        assert torch.get_default_dtype() == torch.float64
        assert set(kinds) == {torch.float64}
        assert torch.tensor(0.5).dtype == torch.float64
    assert all(np.allclose(heat, wanted, atol=1e-6) for heat, wanted in zip(maps, expected, strict=True))


def test_a_thread_that_begins_meanwhile_has_all_threads_of_torch() -> None:
    n = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with beside("openvino"):
            assert torch.get_num_threads() == 1
            assert elsewhere(torch.get_num_threads) == 3
            with for_torch():
                assert torch.get_num_threads() == 3
            assert torch.get_num_threads() == 1
            assert elsewhere(torch.get_num_threads) == 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(n)


# The fence around files of others


def test_fences_of_three_threads_leave_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    stdin = io.StringIO("the caller's\n")
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    first, second = (Own(fenced(), lambda: bool(constants.HF_HUB_OFFLINE)).enter() for _ in range(2))
    third = Own(fenced(online=True), lambda: bool(constants.HF_HUB_OFFLINE)).enter()
    assert (first.found, second.found, third.found) == (True, True, False)
    assert not constants.is_offline_mode()
    assert sys.stdin is stdin
    first.exit()
    third.exit()
    assert not constants.is_offline_mode()
    second.exit()
    assert constants.HF_HUB_OFFLINE is False
    assert input() == "the caller's"


def test_what_the_caller_sets_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    one = Own(fenced()).enter()
    constants.HF_HUB_OFFLINE = True
    one.exit()
    assert constants.HF_HUB_OFFLINE is True


def test_a_library_asks_no_question_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.StringIO("y\n")
    monkeypatch.setattr(sys, "stdin", stdin)
    with fenced(), pytest.raises(EOFError, match="a library asks a question"):
        input("Run it? [y/N]")
    assert stdin.tell() == 0


def test_other_threads_build_while_the_size_is_limited() -> None:
    """Neither is the caller's network counted, nor are torch's hooks moved under it."""
    from torch.nn.modules import module

    hooks = [*module._global_module_registration_hooks]
    with building(Stored(1, 1)):
        assert [*module._global_module_registration_hooks] == hooks
        assert len(elsewhere(lambda: nn.Sequential(nn.Linear(5_000, 5_000, device="meta")))) == 1
        with pytest.raises(ValueError, match="it has at least"):
            nn.Linear(5_000, 5_000, device="meta")
    nn.Linear(5_000, 5_000, device="meta")


def test_bars_and_handlers_come_back_after_the_last_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [True]
    bars = types.SimpleNamespace(_tqdm_active=True)
    bars.disable_progress_bar = lambda: (shown.append(False), setattr(bars, "_tqdm_active", False))
    bars.enable_progress_bar = lambda: (shown.append(True), setattr(bars, "_tqdm_active", True))
    monkeypatch.setitem(sys.modules, "transformers.utils.logging", bars)
    handlers = logging.getLogger().handlers[:]
    first, second = Own(silent()).enter(), Own(silent()).enter()
    first.exit()
    assert shown[-1] is False
    second.exit()
    assert shown[-1] is True
    assert logging.getLogger().handlers == handlers


def test_changes_are_undone_by_the_last_thread_and_once() -> None:
    made = list[str]()

    def change() -> Callable[[], None]:
        made.append("made")
        return lambda: made.append("undone")

    shared = Together(change)
    with shared, shared:
        other = Own(shared).enter()
    assert made == ["made"]
    other.exit()
    assert made == ["made", "undone"]
    with shared:
        pass
    assert made == ["made", "undone"] * 2


# Warnings


def test_hidden_warnings_are_hidden_in_one_thread_only() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        other = Own(quiet(), lambda: warnings.warn("hidden", DeprecationWarning, stacklevel=1)).enter()
        warnings.warn("shown", DeprecationWarning, stacklevel=1)
        other.exit()
        warnings.warn("shown later", FutureWarning, stacklevel=1)
    assert [str(one.message) for one in shown] == ["shown", "shown later"]


def test_filters_that_the_caller_sets_meanwhile_stay() -> None:
    with warnings.catch_warnings():
        before = list(warnings.filters)
        first, second = Own(quiet()).enter(), Own(quiet()).enter()
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            first.exit()
            second.exit()
            assert warnings.filters[0][:3:2] == ("error", UserWarning)
        assert list(warnings.filters) == before
        other = Own(quiet()).enter()
        warnings.simplefilter("error", UserWarning)
        other.exit()
        assert warnings.filters[0][:3:2] == ("error", UserWarning)
        assert list(warnings.filters)[1:] == before


# Registries


def test_results_computed_ahead_come_in_order_and_no_further_than_asked() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(20):
            taken.append(i)
            yield i

    def slow_first(i: int) -> int:
        time.sleep(0.05 * (i == 0))
        return i * i

    stream = map_ahead(slow_first, numbers(), 3)
    assert next(stream) == 0
    assert taken == [0, 1, 2, 3]
    assert list(stream) == [i * i for i in range(1, 20)]
    assert list(map_ahead(slow_first, [], 3)) == []


def test_a_registry_is_not_said_to_be_loaded_before_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second thread asks while the first one still imports."""
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, "st_events", types.SimpleNamespace(begun=begun, go_on=go_on))  # type: ignore[arg-type]
    package = tmp_path / "st_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "slow.py").write_text(
        "import st_events\nst_events.begun.set()\nassert st_events.go_on.wait(60)\n"
        "class Slow:\n    name = 'slow'\nst_events.family.register(Slow)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    family: Registry[Any] = Registry("thing", "st_package", ("slow",), is_listed=False)
    sys.modules["st_events"].family = family  # type: ignore[attr-defined]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: family["slow"])
        assert begun.wait(PATIENCE)
        second = pool.submit(lambda: family["slow"])
        time.sleep(0.05)
        go_on.set()
        assert first.result(PATIENCE) is second.result(PATIENCE)
    assert list(family) == ["slow"]


def test_a_registry_that_failed_fails_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "st_broken.py").write_text("raise RuntimeError('half installed')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("seewhy.registry._families", [])  # else every page that names a method would meet it
    family: Registry[Any] = Registry("thing", "st_none", ("seewhy.st_none",), is_listed=False)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            family["slow"]


# An encoder for all


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_eight_threads_share_an_encoder(engine: str, tmp_path: Path) -> None:
    if engine != "torch":
        pytest.importorskip(engine)
    classifier = seewhy.fit(class_folders(tmp_path, n=4), tiny_cnn(engine=engine))
    shown = [picture(CLASSES[i % 3], i) for i in range(8)]
    methods = ["grad_cam", "guided_grad_cam", "full_grad"]
    expected = [[classifier.explain(one, where=m).where.heat for m in methods] for one in shown]
    probabilities = classifier.predict_proba(shown)

    def work(i: int) -> list[Any]:
        order = [*range(i % len(methods), len(methods)), *range(i % len(methods))]
        heats = {m: classifier.explain(shown[i], where=methods[m]).where.heat for m in order}
        return [classifier.predict_proba([shown[i]]), [heats[m] for m in range(len(methods))]]

    with ThreadPoolExecutor(8) as pool:
        for i, (found, heats) in enumerate(pool.map(work, range(8))):
            np.testing.assert_allclose(found[0], probabilities[i], atol=1e-6)
            for heat, wanted in zip(heats, expected[i], strict=True):
                np.testing.assert_allclose(heat, wanted, atol=1e-5)
