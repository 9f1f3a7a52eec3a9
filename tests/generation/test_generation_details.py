"""What walks, training and pipelines do with each of their numbers: every one has an answer that is known before."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_ppgn import SIDE, colours, towards
from test_ppgn import world as linear_world
from torch import nn

import seewhy
from generator_training import FitGenerator
from seewhy.errors import InputError, ModelError, WeightsError
from seewhy.generation.conditions import Verdict, of_class
from seewhy.generation.generate import _row
from seewhy.generation.sampler import PPGN, Chains, PixelAscent
from seewhy.metrics.calibration import accuracy_interval

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reproductions"))

import make_pictures as pipelines
from make_pictures import MadeSet, OfGenerator, Pipeline, load_pipeline


def test_without_a_unit_of_its_own_eps1_is_as_it_stands() -> None:
    generator, wanted, start = linear_world(0.5), towards(torch.tensor([0.8, 0.8, 0.8])), torch.full((1, 3), 0.4)
    for how in (PPGN(calibrate=False), PPGN(normalise=False), PPGN(eps2=0)):
        assert how._scale(generator, wanted, start).tolist() == [[1.0]]


def test_a_step_is_prior_and_condition_by_their_weights() -> None:
    wanted, start = towards(torch.tensor([0.6, 0.0, 0.0])), torch.tensor([[0.5, 0.5, 0.5]])
    how = PPGN(eps1=0.3, eps2=0.2, n_steps=1, normalise=False)
    end = how.sample(linear_world(0.5), wanted, start)
    terms = how.terms(linear_world(0.5), wanted, start)
    torch.testing.assert_close(end.codes, start + 0.3 * terms.prior + 0.2 * terms.condition)
    assert end.sizes[0] == pytest.approx((float(terms.prior.abs().mean()), float(terms.condition.abs().mean())))


def test_the_sizes_told_are_those_of_the_first_step_and_of_the_last() -> None:
    wanted = towards(torch.tensor([0.9, 0.9, 0.9]))
    how = PPGN(eps1=0, n_steps=5, lr=0.05, lr_end=None)
    end = how.sample(linear_world(), wanted, torch.zeros(1, 3))
    assert [pair[1] for pair in end.sizes] == pytest.approx([0.9, 0.9 - 4 * 0.1]), "four steps of a tenth lie between"
    pixels = PixelAscent(how, lr=0.05).sample(wanted, torch.full((1, 3, SIDE, SIDE), 0.5))
    first, last = (pair[1] for pair in pixels.sizes)
    assert last / first == pytest.approx((0.9 - 4 * 0.1) / 0.9, rel=1e-4)


def test_steps_are_alike_where_no_end_is_given_and_shorten_evenly_where_one_is() -> None:
    assert [PPGN(lr=0.1, lr_end=None, n_steps=3).rate(i) for i in range(3)] == [0.1] * 3
    assert [PPGN(lr=0.1, lr_end=0.02, n_steps=5).rate(i) for i in range(5)] == pytest.approx(
        [0.1, 0.08, 0.06, 0.04, 0.02]
    )


def test_chains_beside_one_another_have_noise_of_their_own_and_of_their_seed() -> None:
    how = PPGN(eps1=0, eps2=0, eps3=1.0, n_steps=1, normalise=False, clip=False)
    draws = [
        how.sample(linear_world(), towards(torch.zeros(3)), torch.zeros(3, 3), seed=seed).codes for seed in (0, 1, 2)
    ]
    assert len({tuple(row) for one in draws for row in one.tolist()}) == 9


@pytest.mark.parametrize(
    "given",
    [
        {"eps1": -0.1}, {"eps2": -1.0}, {"eps3": -1e-9}, {"lr": 0.0}, {"n_steps": 0}, {"n_shown": 0},
        {"lr_end": -0.1},
    ],
)  # fmt: skip
def test_a_walk_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r" of the sampler must be a .*number"):
        PPGN(**given)


class Judging(nn.Module):
    """Real ones are black, and it is this sure of either."""

    def __init__(self, real: float, made: float) -> None:
        super().__init__()
        self.real, self.made = real, made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        black = x.detach().mean((1, 2, 3)) < 0.01
        return torch.where(black, self.real, self.made) + 0 * x.sum()


QUICK = FitGenerator(side=16, reads=16, width=4, hidden=16, n_steps=2, batch_size=8)


class Stop(Exception):
    """The training was to begin."""


def test_a_row_of_the_page_by_its_formulas() -> None:
    """Of four pictures two were judged to be it, one not, and one by a judge without such a class."""
    values = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]])
    walk = Chains(
        (0, 1),
        torch.zeros(2, 4, 3, 4, 4),
        values,
        torch.zeros(4, 3),
        torch.tensor([0.1, 0.2, 0.3, 0.6]),
        ((1.23456, 2.0), (0.5, 0.25)),
    )
    verdicts = [Verdict("a", 0.9, one) for one in (True, True, False, None)]
    found = _row("ppgn", walk, verdicts, 0.123456)
    interval = [round(v, 4) for v in accuracy_interval(torch.tensor([True, True, False]))]
    assert found == {
        "way": "ppgn", "start": 0.25, "value": 0.65, "judged": 2 / 3, "interval": interval, "diversity": 0.12346,
        "prior_error": 0.3, "sizes": [[1.235, 2.0], [0.5, 0.25]],
    }  # fmt: skip
    unjudged = _row("pixels", replace(walk, prior_error=None), [], None)
    assert [unjudged[key] for key in ("judged", "interval", "diversity", "prior_error")] == [None] * 4


def test_a_set_of_our_own_is_known_by_all_that_makes_it() -> None:
    generator, model = linear_world(), seewhy.pretrained(colours(torch.eye(3)))
    other = seewhy.pretrained(colours(torch.eye(3)))
    with torch.no_grad():
        other.head.weight += 1  # type: ignore[operator]
    sources = [
        OfGenerator(generator),
        OfGenerator(linear_world(0.5)),
        OfGenerator(generator, model),
        OfGenerator(generator, other),
        OfGenerator(generator, seewhy.pretrained(colours(torch.eye(3), "others"))),
        OfGenerator(generator, model, PPGN(eps1=0.2)),
    ]
    assert len({one.fingerprint for one in sources}) == len(sources)
    assert sources[0].fingerprint == OfGenerator(linear_world()).fingerprint
    assert sources[0].refusal(("a",)) == "the encoder 'colours' of the generator reads no words"
    assert [sources[0].refusal(()), sources[2].refusal(("a",))] == [None, None]
    with pytest.raises(
        InputError, match=r"^1 class\(es\) were named, and the encoder 'colours' of the generator reads no"
    ):
        MadeSet(("a",)).make(sources[0], Path("never"))
    assert not Path("never").exists()


def test_a_picture_of_a_set_is_of_its_class_and_its_seed() -> None:
    source = OfGenerator(linear_world(), seewhy.pretrained(colours(torch.eye(3))), PPGN(n_steps=3))
    one, again, other = (source.picture("a", "", seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert (one.dtype, one.shape) == (np.uint8, (SIDE, SIDE, 3))
    walk = source.sampler.sample(
        source.generator,
        of_class(source.classifier, "a"),
        seewhy_noise(source.generator, 1),
        seed=1,  # type: ignore[arg-type]
    )
    assert np.abs(one.transpose(2, 0, 1) - walk.pictures[-1][0].clamp(0, 1).numpy() * 255).max() <= 0.51


def seewhy_noise(generator: Any, seed: int) -> torch.Tensor:
    from seewhy.generation.sampler import noise

    return noise(generator, 1, seed)


class Pipe:
    """A pipeline that keeps what it is asked."""

    def __init__(self, mode: str = "RGB", fails: bool = False) -> None:
        self.asked: dict[str, Any] = {}
        self.mode, self.fails = mode, fails

    def __call__(self, **asked: Any) -> Any:
        if self.fails:
            raise RuntimeError("no memory")
        self.asked = asked
        return SimpleNamespace(images=[Image.new(self.mode, (6, 4), 7)])


def test_a_pipeline_is_asked_what_was_said_and_no_more() -> None:
    pipe = Pipe("L")
    found = Pipeline(pipe, "Emu", "f", True, 30, 0.0).picture("cat", "a cat", 9)
    assert (found.shape, found.dtype, found.max()) == ((4, 6, 3), np.uint8, 7)
    drawn = pipe.asked.pop("generator")
    assert drawn.initial_seed() == 9
    assert pipe.asked == {"prompt": "a cat", "num_inference_steps": 30, "guidance_scale": 0.0, "output_type": "pil"}
    Pipeline(pipe, "Emu", "f", False).picture(None, "", 9)
    assert {*pipe.asked} == {"generator", "output_type"}
    with pytest.raises(ModelError, match=r"^Emu made no picture: no memory.* Expected a pipeline that makes one\."):
        Pipeline(Pipe(fails=True), "Emu", "f", False).picture(None, "", 9)
    words, free = (Pipeline(pipe, "Emu", "f", in_words) for in_words in (True, False))
    assert [words.refusal(("a",)), free.refusal(())] == [None, None]
    assert [words.refusal(()), free.refusal(("a",))] == ["Emu has to be told what to make", "Emu reads no words"]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A library of the pipelines' kind; makes folders of pipelines with this call."""
    bars: list[str] = []
    logs: Any = ModuleType("diffusers.utils.logging")
    logs.get_logger = logging.getLogger  # of what loads transformers only now
    logs.disable_progress_bar, logs.enable_progress_bar = (lambda: bars.append("off")), (lambda: bars.append("on"))

    called: dict[str, Any] = {}

    class Base:
        @classmethod
        def from_pretrained(cls, folder: str, **how: Any) -> Any:
            called.update(how)
            assert bars[-1] == "off"
            return cls()

        def set_progress_bar_config(self, disable: bool) -> None:
            assert disable

        def to(self, _device: str) -> None: ...

    made: Any = ModuleType("diffusers")
    made.__spec__ = ModuleSpec("diffusers", None)  # others ask whether it is installed
    made.DiffusionPipeline, made.pipelines = Base, SimpleNamespace(unets=ModuleType("unets"), word="no module")
    monkeypatch.setitem(sys.modules, "diffusers", made)
    monkeypatch.setitem(sys.modules, "diffusers.utils.logging", logs)
    monkeypatch.setitem(sys.modules, "transformers.utils.logging", logs)
    monkeypatch.setattr(pipelines.torch.cuda, "is_available", lambda: False)

    def make(call: Callable[..., Any], files: tuple[str, ...] = ("unet/a.safetensors",), **index: Any) -> Path:
        made.Kind = type("Kind", (Base,), {"__call__": call})
        folder = tmp_path / f"p{len(list(tmp_path.iterdir()))}"
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode())
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "Kind", **index}))
        return folder

    make.called = called  # type: ignore[attr-defined]
    return make


def plain(self: Any, prompt: str, num_inference_steps: int, guidance_scale: float, generator: Any) -> None: ...
def wordless(self: Any, num_inference_steps: int, generator: Any) -> None: ...
def of_picture(self: Any, image: Any, prompt: str, generator: Any) -> None: ...
def of_numbers(self: Any, class_labels: Any, generator: Any) -> None: ...
def unseeded(self: Any, prompt: str) -> None: ...


def test_a_pipeline_is_known_by_its_files_and_by_how_it_is_asked(library: Any) -> None:
    folder = library(
        plain, unet=["diffusers", "A"], scheduler=["transformers", "B"], more=["unets", "C"], none=[None, None]
    )
    found = load_pipeline(folder, steps=3, guidance=2.0)
    assert (found.in_words, found.steps, found.guidance, found.name) == (True, 3, 2.0, "Kind")
    assert library.called == {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
    prints = {load_pipeline(folder, **how).fingerprint for how in ({}, {"steps": 3}, {"guidance": 2.0}, {"steps": 4})}
    (folder / "unet" / "a.safetensors").write_bytes(b"other weights")
    prints.add(load_pipeline(folder).fingerprint)
    (folder / "unet" / "a.safetensors").rename(folder / "unet" / "b.safetensors")
    prints.add(load_pipeline(folder).fingerprint)
    assert len(prints) == 6
    assert load_pipeline(library(wordless)).in_words is False


@pytest.mark.parametrize("call", [of_picture, of_numbers, unseeded])
def test_a_pipeline_that_wants_something_else_is_refused(library: Any, call: Any) -> None:
    with pytest.raises(ModelError, match=r"^Kind in .* needs a picture or class numbers, or takes no seed\."):
        load_pipeline(library(call))


def test_a_setting_that_a_pipeline_has_not_is_told(library: Any) -> None:
    with pytest.raises(
        InputError, match=r"^Kind was given guidance_scale=0\. It has no such setting\. Leave it out\.$"
    ):
        load_pipeline(library(wordless), guidance=0.0)


@pytest.mark.parametrize(
    ("files", "index", "kind", "says"),
    [
        (("unet/a.pyc", "unet/a.safetensors"), {}, ModelError, "brings its own code, 'a.pyc'"),
        (("a.so", "unet/a.safetensors"), {}, ModelError, "brings its own code, 'a.so'"),
        (("unet/a.bin", "vae/a.safetensors"), {}, WeightsError, "unet/a.bin of .* is a pickle"),
        (("unet/a.safetensors",), {"unet": ["word", "X"]}, ModelError, r"its unet is \['word', 'X'\]"),
        (("unet/a.safetensors",), {"unet": ["diffusers", "X", "Y"]}, ModelError, "its unet is"),
        (("unet/a.safetensors",), {"unet": [None, "X"]}, ModelError, "its unet is"),
    ],
)
def test_what_a_folder_of_a_pipeline_may_not_hold(
    library: Any, files: tuple[str, ...], index: dict[str, Any], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        load_pipeline(library(plain, files, **index))
    load_pipeline(library(plain, ("unet/a.bin", "unet/a.safetensors")))
