"""What made pictures are made of, each part beside the answer that it must give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate

import seewhy
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.errors import InputError, ModelError, WeightsError
from seewhy.generation.conditions import Judge, diversity, of_class, of_neuron, of_picture, of_text
from seewhy.generation.generate import Asking, Made, Question, make, sentence
from seewhy.generation.generator import (
    Generator,
    GeneratorNetwork,
    Reader,
    bytes_of,
    load_generator,
    unit,
)
from seewhy.generation.sampler import JITTER, PPGN, PixelAscent, at_picture, facets_among, noise
from seewhy.types import Transform
from tiny import build, picture, tiny_cnn

PICTURES = [picture(name, i) for i in range(6) for name in ("moss", "rust", "sky", "sand")]


def world(on: Encoder | None = None) -> Generator:
    """A network of random weights on codes as they are of real pictures."""
    on = on or tiny_cnn()
    read = Reader(on, 16)
    with torch.no_grad():
        codes = read(torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = GeneratorNetwork(codes.shape[1], 16, 4, 16)
    network.scale_to(codes)
    facts = {"side": 16, "reads": 16, "width": 4, "hidden": 16}
    return Generator(network.eval().requires_grad_(False), read, (-3.0, 3.0), codes, facts)


def test_where_a_question_starts() -> None:
    generator, photo = world(), PICTURES[0]
    for beside in ({"label": "moss"}, {"text": "a photo"}, {"neuron": 3}):
        assert Question(like=photo, **beside).start(generator) is not None  # type: ignore[arg-type]
    assert Question(like=photo).start(generator) is None


def test_what_conditions_say() -> None:
    on = tiny_cnn()
    model, pictures = seewhy.pretrained(on), torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    pooled = Reader(on)(pictures)
    text, like = of_text(on, "moss"), of_picture(on, pictures[:1], "x")
    torch.testing.assert_close(text.scores(pictures)[:, 0], on.text.logit_scale * text.value(pictures))
    torch.testing.assert_close(
        text.value(pictures), cosine_similarity(on.text.project(pooled), on.encode_text(["moss"]))
    )
    torch.testing.assert_close(like.value(pictures), cosine_similarity(pooled, pooled[:1]))
    torch.testing.assert_close(like.scores(pictures)[:, 0], 20 * like.value(pictures))
    torch.testing.assert_close(of_class(model, "sky").value(pictures), model.head(pooled).softmax(1)[:, 2])
    torch.testing.assert_close(of_neuron(on, 7, 8).value(pictures), pooled[:, 7])
    with pytest.raises(InputError, match=r"`neuron` must be from 0 to 7, a unit of .*, got 8"):
        of_neuron(on, 8, 8)
    with pytest.raises(InputError, match="`text` must not be empty"):
        of_text(on, "  ")


@pytest.fixture(scope="module")
def made() -> tuple[Generator, Made]:
    generator, model = world(), seewhy.pretrained(tiny_cnn())
    found = make(
        generator, of_class(model, 1), sampler=PPGN(n_steps=6), asking=Asking(3, "noise", seed=4),
        judge=tiny_cnn(seed=1), classes=model.classes,
    )  # fmt: skip
    return generator, found


def test_what_is_shown_is_what_was_walked(made: tuple[Generator, Made]) -> None:
    generator, found = made
    rows = {row["way"]: row for row in found.data["ways"]}
    assert (rows["no_prior"]["sizes"][0][0], rows["ppgn"]["sizes"][0][0] > 0) == (0, True)
    starts = noise(generator, 3, 4).clamp(*generator.bounds)
    first = bytes_of(generator.network(starts)).numpy()
    for way in ("ppgn", "no_prior", "pixels"):
        for strip, start in zip(found.strips[way], first, strict=True):
            assert np.array_equal(strip[0], start)
    assert all(np.array_equal(p, s[-1]) for p, s in zip(found.pictures, found.strips["ppgn"], strict=True))
    chains = [c for c in found.data["chains"] if c["way"] == "ppgn"]
    assert rows["ppgn"]["start"] == pytest.approx(np.mean([c["values"][0] for c in chains]), abs=1e-4)
    assert found.data["start"].startswith("noise")


def test_the_judge_looks_at_the_last_pictures(made: tuple[Generator, Made]) -> None:
    _, found = made
    model = seewhy.pretrained(tiny_cnn())
    judge = Judge.of(tiny_cnn(seed=1), of_class(model, 1), model.classes)
    said = np.array([chain["judged"]["probability"] for chain in found.data["chains"][3:6]])
    ends, begins = (
        np.array([v.probability for v in judge.look(unit(torch.from_numpy(np.stack(shown))))[0]])
        for shown in zip(*((strip[-1], strip[0]) for strip in found.strips["no_prior"]), strict=True)
    )
    assert np.abs(said - ends).max() < 0.2 * np.abs(said - begins).max()
    assert found.data["judge"]["is_the_prior"] is False
    other = world(tiny_cnn(seed=1))
    again = make(
        other, of_class(model, 1), sampler=PPGN(n_steps=1), asking=Asking(2, controls=False), judge=tiny_cnn(seed=1),
        classes=model.classes,
    )  # fmt: skip
    assert again.data["judge"]["is_the_prior"] is True


def test_a_generator_that_hardly_draws_makes_nothing() -> None:
    facts = {"side": 16, "held_out_error": 0.19, "mean_picture_error": 0.2}
    with pytest.raises(
        ModelError,
        match=r"^The reconstruction error of the generator of tiny's codes on held-out pictures must be .* got 0\.190",
    ):
        make(replace(world(), facts=facts), of_class(seewhy.pretrained(tiny_cnn()), 1))


def test_a_judge_without_the_class_is_told_of_the_pictures_alone() -> None:
    rows = [{"way": w, "judged": None, "value": 0.9} for w in ("ppgn", "pixels")]
    chains = [{"way": w, "judged": {"label": label}} for w, label in (("ppgn", "moss"), ("pixels", "sand"))]
    data = {"measure": "activation", "ways": rows, "chains": chains, "climbed": "net", "judge": {}, "asked": "x"}
    assert sentence(data) == (
        "The judge does not know this class. It sees moss. net, which guided them, gives them an average activation of "
        "0.90."
    )


def test_a_judge_by_its_closed_forms() -> None:
    on, model = tiny_cnn(seed=1), seewhy.pretrained(tiny_cnn())
    with pytest.raises(InputError, match="The judge, which classifies the generated pictures, must not use"):
        Judge.of(tiny_cnn(), of_class(model, 0), model.classes)
    other, pictures = seewhy.pretrained(on), 3 * torch.rand(8, 3, 32, 32) - 1
    p = other.head.probabilities(Reader(on)(pictures.clamp(0, 1)))
    least = int(p[0].argmin())
    verdicts, features = Judge(other, model.classes[least]).look(pictures)
    assert [v.probability for v in verdicts] == pytest.approx(p[:, least].tolist(), abs=1e-5)
    assert [v.label for v in verdicts] == [model.classes[i] for i in p.argmax(1)]
    torch.testing.assert_close(features.norm(dim=1), torch.ones(8))
    assert diversity(torch.ones(1, 4) / 2) is None
    assert (diversity(torch.eye(3)), diversity(torch.ones(2, 4) / 2)) == (1.0, 0.0)


def saved(folder: Path, **other: Any) -> Generator:
    facts = {"side": 16, "reads": 16, "width": 4, "hidden": 16}
    found = replace(world(), facts=facts, **other)
    found.save(folder)
    return found


def test_a_generator_comes_back_with_all_that_it_is(tmp_path: Path) -> None:
    own = saved(tmp_path)
    found = load_generator(tmp_path, own=tiny_cnn())
    assert (found.bounds, found.read.side, found.network.training) == ((-3.0, 3.0), 16, False)
    torch.testing.assert_close(found.network(own.codes), own.network(own.codes))
    with pytest.raises(ModelError):
        load_generator(tmp_path, own=tiny_cnn(seed=1))
    asked = seewhy.generate(tmp_path, tiny_cnn(), target="moss", n=1, controls=False, sampler=PPGN(n_steps=1))
    assert asked.data["asked"] == "moss"
    saved(tmp_path / "b", codes=torch.full((3, 8), float("nan")))
    with pytest.raises(WeightsError, match="is damaged"):
        load_generator(tmp_path / "b", own=tiny_cnn())


def test_codes_are_centred_and_scaled_and_what_hardly_fires_is_not_blown_up() -> None:
    codes = torch.tensor([[0.0, 1.0, 0.0], [0.0, 3.0, 0.0], [9.0, 8.0, 1e-4]])
    network = GeneratorNetwork(3, 16, 4, 16)
    network.scale_to(codes)
    torch.testing.assert_close(network.centre, codes.mean(0))
    torch.testing.assert_close(network.spread[:2], codes.std(0)[:2])
    assert float(network.spread[2]) == pytest.approx(0.05 * float(codes.std(0).mean()), rel=1e-3)
    cells = network.first((codes - network.centre) / network.spread).unflatten(1, (-1, 4, 4))
    torch.testing.assert_close(network(codes), network.ups(cells).sigmoid())


def test_a_reader_brings_pictures_to_its_side_smoothly() -> None:
    on, pictures = tiny_cnn(), torch.rand(2, 3, 64, 64)
    for read, side in ((Reader(on), 32), (Reader(on, 16), 16)):
        small = interpolate(pictures, (side, side), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (on.transform.mean, on.transform.std))
        torch.testing.assert_close(read.pixels(pictures), (small - mean) / std)

    class Lost(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 0 * 0

    with pytest.raises(ModelError, match="non-finite features at a side of 16 pixels"):
        Reader(build(Lost(), GlobalAverage(), Layout(), 3), 16)


def test_pictures_are_cut_as_the_encoder_cuts_them() -> None:
    cut: Any = SimpleNamespace(transform=Transform((32, 32), 40, "bilinear", (0.5,) * 3, (0.5,) * 3))
    assert (cut.transform.at(16).resize, cut.transform.at(16).input_size) == (20, (16, 16))
    assert tiny_cnn().transform.at(16).resize == (16, 16)
    shown = bytes_of(torch.tensor([-0.2, 0.4999, 0.999, 1.2]).view(1, 1, 2, 2).expand(1, 3, 2, 2))
    assert shown[0, ..., 0].flatten().tolist() == [0, 127, 255, 255]


def test_noise_parts_chains_of_one_start() -> None:
    generator, wanted = world(), of_class(seewhy.pretrained(tiny_cnn()), 0)
    starts = generator.codes[:1].expand(2, -1)
    ends = PPGN(eps1=0, eps2=0, eps3=0.1, n_steps=2, normalise=False).sample(generator, wanted, starts).codes
    assert not torch.allclose(ends[0], ends[1])
    end = PPGN(eps2=0, n_steps=1).sample(generator, wanted, starts)
    off = generator.read(generator.network(end.codes)) - end.codes
    assert end.prior_error is not None
    torch.testing.assert_close(end.prior_error, off.norm(dim=1) / end.codes.norm(dim=1))


def test_pixels_move_as_far_as_their_steps_say() -> None:
    model = seewhy.pretrained(tiny_cnn())
    how = PPGN(n_steps=3, lr=0.1, lr_end=0.0, n_shown=3)
    start = torch.full((1, 3, 16, 16), 0.5)
    found = PixelAscent(how, lr=0.01).sample(of_class(model, 0), start)
    moved = (found.pictures[1:] - found.pictures[:-1]).abs().mean((1, 2, 3, 4))
    torch.testing.assert_close(moved, torch.tensor([0.01, 0.005, 0.0]), atol=1e-5, rtol=1e-3)


def test_where_chains_start() -> None:
    generator = world()
    codes = generator.codes
    many = noise(generator, 4000, 0)
    torch.testing.assert_close(many.mean(0), codes.mean(0), atol=0.05, rtol=0.1)
    torch.testing.assert_close(many.std(0), codes.std(0), atol=0.02, rtol=0.1)
    photo = torch.rand(1, 3, 16, 16)
    around = at_picture(generator, photo, 400, 0)
    torch.testing.assert_close(around[1:].std(0), JITTER * codes.std(0), atol=0.02, rtol=0.2)
    assert len(facets_among(codes[:3], torch.arange(3.0), 5, 0)) == 5
    line = torch.arange(80.0)[:, None]
    near = facets_among(line, line[:, 0], 2, 0)
    assert near.min() >= 70  # among the best ten of eighty
