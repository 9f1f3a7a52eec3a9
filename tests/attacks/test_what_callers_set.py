"""Whatever a program has set of torch, numpy and Python: SeeWhy answers the same, and leaves it as it was."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special  # noqa: F401  sets a filter of warnings, which is not SeeWhy's doing
import torch
from torch import nn

import seewhy
from seewhy.attributions.integrated_gradients import IntegratedGradients
from seewhy.encoders.base import Encoder
from seewhy.errors import WeightsError
from seewhy.heads.head import Target
from seewhy.learning.adaptation.word_prompts import CoOp
from seewhy.retrieval import Index
from tiny import CLASSES, class_folders, picture, tiny_cnn
from tiny_transformer import tiny_vit
from tiny_words import opened


@contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        assert torch.get_default_dtype() == torch.float64
        torch.set_default_dtype(torch.float32)


@contextmanager
def elsewhere() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)


@contextmanager
def no_gradients() -> Iterator[None]:
    torch.set_grad_enabled(False)
    try:
        yield
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


SET: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "double": double,
    "elsewhere": elsewhere,
    "elsewhere, inside": lambda: torch.device("meta"),
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "no gradients": no_gradients,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


class Small(nn.Module):
    """A network that users have, made in whatever way was set."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, dtype=torch.float32, device="cpu"), nn.ReLU())
        self.last = nn.Linear(6, 3, dtype=torch.float32, device="cpu")
        for i, parameter in enumerate(self.parameters()):
            wave = torch.arange(parameter.numel(), dtype=torch.float32, device="cpu").mul(1.3 + i).sin()
            parameter.data = wave.reshape(parameter.shape)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.features(pixels).mean((2, 3)))
        return out


def answers(encoder: Encoder, folder: Path) -> list[Any]:
    """Everything that a program asks for, as numbers."""
    shown = picture(CLASSES[0], 3)
    classifier = seewhy.fit(folder, encoder)
    why = classifier.explain(shown)
    again = seewhy.load(classifier.save(folder.parent / "saved"), encoder=encoder)
    look = encoder.encode(encoder.pixels([np.zeros((*encoder.transform.input_size, 3), np.uint8)]))
    deep = IntegratedGradients()(classifier, look, Target(np_long(1)))
    own = seewhy.pretrained(seewhy.from_module(Small(), transform=encoder.transform, engine="torch"))
    return [
        classifier.predict_proba([shown]),
        again.predict_proba([shown]),
        why.where.heat,
        own.explain(shown).where.heat,
        deep.cpu().numpy(),
        [found.prediction.probability for found in classifier.explain_all([shown, shown])],
        [found.probability for found in classifier.predict_all([shown])],
        [p.dtype == torch.float32 and p.device.type == "cpu" for p in encoder.head.buffers()],
    ]


def np_long(*values: int) -> torch.Tensor:
    return torch.from_numpy(np.array(values))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = class_folders(tmp_path_factory.mktemp("plain") / "pictures", n=4)
    return answers(tiny_cnn(engine="torch"), folder)


@pytest.mark.parametrize("what", SET)
def test_what_is_set_changes_no_answer(tmp_path: Path, plain: list[Any], what: str) -> None:
    folder, encoder = class_folders(tmp_path / "pictures", n=4), tiny_cnn(engine="torch")
    with SET[what]():
        given = answers(encoder, folder)
    for ours, expected in zip(given, plain, strict=True):
        np.testing.assert_allclose(np.asarray(ours, float), np.asarray(expected, float), atol=1e-6)
    later = encoder.encode(encoder.pixels([np.zeros((*encoder.transform.input_size, 3), np.uint8)]))
    leaf = later.features.clone().requires_grad_()
    assert torch.autograd.grad(encoder.head(leaf).sum(), leaf)[0].isfinite().all()


@pytest.mark.parametrize("what", SET)
def test_a_transformer_is_loaded_and_explained_the_same(what: str) -> None:
    expected = seewhy.pretrained(tiny_vit()).explain(picture(CLASSES[0], 1), where="chefer").where.heat
    encoder = tiny_vit()
    with SET[what]():
        found = seewhy.pretrained(encoder).explain(picture(CLASSES[0], 1), where="chefer").where.heat
    np.testing.assert_allclose(found, expected, atol=1e-6)


def kept(folder: Path, encoder: Encoder, tag: str) -> list[Any]:
    """What an index keeps and answers, as numbers."""
    names = sorted((folder / "pictures").rglob("*.png"))
    index = Index.create(folder / tag, encoder)
    index.add(names)
    index.close()
    with closing(Index.open(folder / tag, encoder)) as again:
        hits = again.search(picture(CLASSES[0], 3), k=5, collapse=None).hits
        ours = again.vectors()
        nearest = again.nearest(ours[0])[1].scores
        return [ours.cpu().numpy(), [hit.cosine for hit in hits], nearest.cpu().numpy()]


@pytest.mark.parametrize("what", SET)
def test_an_index_keeps_and_answers_the_same(tmp_path: Path, what: str) -> None:
    class_folders(tmp_path / "pictures", n=4)
    encoder = tiny_cnn(engine="torch")
    plain = kept(tmp_path, encoder, "plain")
    with SET[what]():
        given = kept(tmp_path, encoder, "given")
    for ours, expected in zip(given, plain, strict=True):
        np.testing.assert_allclose(np.asarray(ours, float), np.asarray(expected, float), atol=1e-6)


def settings() -> list[Any]:
    """All that a program may have set, and a call may have moved."""
    return [
        random.getstate(),
        [str(part) for part in np.random.get_state()],
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        np.get_printoptions(),
        np.geterr(),
        list(warnings.filters),
        [(name, logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in ("", "seewhy")],
        [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        os.getcwd(),
        {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        sys.getrecursionlimit(),
        sys.stdin,
    ]


def refused(folder: Path) -> None:
    with pytest.raises(WeightsError):
        seewhy.encoder(f"file:{folder / 'no.safetensors'}")


@pytest.mark.parametrize("work", ["fit", "explain", "evaluate", "adapt", "audit", "study", "refused"])
def test_nothing_is_left_changed(tmp_path: Path, work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "seewhy.undisturbed._is_alone", lambda: True
    )  # several test processes have threads of their own
    folder, encoder = class_folders(tmp_path / "pictures", n=6), tiny_cnn(engine="torch")
    classifier = seewhy.fit(folder, encoder)
    jobs: dict[str, Callable[[], Any]] = {
        "fit": lambda: seewhy.fit(folder, encoder),
        "explain": lambda: classifier.explain(picture(CLASSES[0], 1), where="rise"),
        "evaluate": lambda: classifier.evaluate(folder, n_explained=2),
        "adapt": lambda: seewhy.adapt(folder, opened(), method=CoOp(keep=0.5, epochs=2, batch_size=4, n_bank=0)),
        "audit": lambda: seewhy.audit(classifier, folder),
        "study": lambda: seewhy.study(classifier, [picture(CLASSES[0], 1)], methods=["grad_cam", "rise"]),
        "refused": lambda: refused(tmp_path),
    }
    random.seed(5)
    np.random.seed(6)
    torch.manual_seed(7)
    torch.set_num_threads(1)
    before = settings()
    jobs[work]()
    for now, then in zip(settings(), before, strict=True):
        assert now == then


def in_child(work: Callable[[], bool]) -> bool:
    """Whether it comes out true in a fork, in bounded time."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        good = False
        try:
            good = work()
        finally:
            os._exit(0 if good else 1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnxruntime"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_answers_as_its_parent_does(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec(engine) is None:  # importing OpenVINO here would have it report, where SeeWhy's own import does not
        pytest.skip(f"{engine} is not installed")
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    classifier = seewhy.fit(class_folders(tmp_path / "pictures", n=4), tiny_cnn(engine=engine))
    shown = [picture(CLASSES[0], seed) for seed in range(4)]
    torch.set_num_threads(4)  # OpenMP's threads are there, and a fork does not have them
    large = torch.randn(600, 600)
    assert (large @ large).isfinite().all()
    expected = classifier.predict_proba(shown)
    heat = classifier.explain(shown[0]).where.heat

    def again() -> bool:
        fine = np.allclose(classifier.predict_proba(shown), expected, atol=1e-5)
        return fine and np.allclose(classifier.explain(shown[0]).where.heat, heat, atol=1e-5)

    assert in_child(again)
    assert in_child(lambda: in_child(again)), "a fork of a fork"
    assert np.allclose(classifier.predict_proba(shown), expected, atol=1e-6), "the parent goes on"


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_predicts_after_another_network_is_gone() -> None:
    pixels = torch.zeros(2, 3, 224, 224)
    encoder, other = (seewhy.encoder("lite0", engine="openvino") for _ in range(2))
    expected = encoder.pooled(pixels)
    other.pooled(pixels)
    del other
    gc.collect()  # OpenVINO keeps the threads of that network for the next one, and a fork does not have them
    assert in_child(lambda: torch.allclose(encoder.pooled(pixels), expected, atol=1e-4))
