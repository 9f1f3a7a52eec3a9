"""The verbs: a generator is trained, goes on where it was stopped, is saved, refused; pictures are made and judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import seewhy
from generator_training import FitGenerator, Reconstruct, training
from seewhy.cli import app
from seewhy.encoders.find import encoder as find
from seewhy.errors import DataError, ForeignFileError, InputError, ModelError, WeightsError
from seewhy.generation.generate import Question
from seewhy.generation.generator import GeneratorNetwork, Reader, load_generator, unit
from seewhy.generation.sampler import PPGN
from seewhy.pictures.samples import Samples, load_pictures
from seewhy.progress import Progress
from seewhy.training.batches import Batch
from tiny import class_folders, tiny_cnn

SHORT = PPGN(n_steps=4)
QUICK = FitGenerator(side=16, reads=16, width=4, hidden=16, n_steps=12, batch_size=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("generate") / "all", 8)


@pytest.fixture(scope="module")
def samples(folders: Path) -> Samples:
    return load_pictures(folders)


@pytest.fixture(scope="module")
def kept(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator for ``new:resnet/16``, as a command makes it."""
    folder = tmp_path_factory.mktemp("kept") / "gen"
    given = [str(folders), "-o", str(folder), "-e", "new:resnet/16", "--engine", "torch"]
    training.main([*given, "--side", "16", "--n-steps", "60", "--lr", "0.005"])
    assert not list(folder.glob(".*"))
    return folder


def test_a_generator_learns_and_says_how_far_it_is(samples: Samples) -> None:
    on = tiny_cnn()
    before = {n: t.clone() for n, t in on.trunk.state_dict().items()}
    found = replace(QUICK, n_steps=80, lr=5e-3).fit(on, samples.items)
    assert found.facts["held_out_error"] < 0.6 * found.facts["mean_picture_error"]
    assert 0 < found.facts["code_error"] < 0.6
    assert all(torch.equal(t, before[n]) for n, t in on.trunk.state_dict().items())
    made = found.network(found.codes)
    assert found.facts["n_pictures"] == len(found.codes)
    assert (float(made.min()) >= 0, float(made.max()) <= 1, made.requires_grad) == (True, True, False)
    low, high = found.bounds
    assert found.codes.min() - 0.01 < low < high < found.codes.max() + 0.01


class Killed(Progress):
    """Stops a training after so many steps."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def measured(self, step: int, terms: Mapping[str, float]) -> None:
        if step == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("gan", [0.0, 0.1])
def test_what_was_stopped_goes_on_to_the_same_weights(gan: float, samples: Samples, tmp_path: Path) -> None:
    fit, where, progress = replace(QUICK, gan=gan, n_steps=6), tmp_path / "checkpoint", Progress()
    whole = fit.fit(tiny_cnn(), samples.items)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(tiny_cnn(), samples.items, checkpoint=where, progress=Killed(4))
    assert where.exists()
    again = fit.fit(tiny_cnn(), samples.items, checkpoint=where, progress=progress)
    assert "resuming at step 5" in progress.notes
    for (name, a), b in zip(whole.network.state_dict().items(), again.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_loss_is_pixels_and_features() -> None:
    on, network = tiny_cnn(), GeneratorNetwork(8, 16, 4, 16)
    read = Reader(on, 16)
    pictures = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)
    codes = torch.randn(4, 8)
    task = Reconstruct(network, read, 0.5, 0.0)
    terms = task.loss(network(codes), Batch([0, 1, 2, 3], {"pictures": pictures, "codes": codes}))
    made, real = network(codes), unit(pictures)
    pixel = (made - real).square().mean()
    feature = (read.features(made) - read.features(real)).square().mean() / read.features(real).var()
    torch.testing.assert_close(terms["loss"], pixel + 0.5 * feature)
    torch.testing.assert_close(terms["h1"], feature.detach())


def test_a_discriminator_far_ahead_waits() -> None:
    task = Reconstruct(GeneratorNetwork(8, 16, 4, 16), Reader(tiny_cnn(), 16), 0.0, 1.0)

    class Sure(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 40 * (x.mean((1, 2, 3)) < 0.1).float() - 20 + 0 * x.sum()

    task.judge = Sure()
    codes, pictures = torch.randn(2, 8), torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    terms = task.loss(task.network(codes), Batch([0, 1], {"pictures": pictures, "codes": codes}))
    assert float(terms["discriminator"].detach()) == 0
    assert float(terms["loss"].detach()) > 15


def test_what_is_kept_comes_back(kept: Path) -> None:
    found = load_generator(kept)
    same = load_generator(kept / "generator.safetensors", find("new:resnet/16", engine="torch"))
    codes = found.codes[:3]
    assert torch.equal(found.network(codes), same.network(codes))
    assert (found.side, found.read.encoder.name, found.bounds) == (16, "new:resnet/16", same.bounds)


def test_another_encoder_is_refused(kept: Path) -> None:
    own = load_generator(kept).read.encoder
    with pytest.raises(ModelError) as told:
        load_generator(kept, tiny_cnn())
    assert str(told.value) == (
        f"{kept / 'generator.safetensors'} needs 'new:resnet/16' with the fingerprint {own.fingerprint[:12]}, got "
        f"'tiny' with {tiny_cnn().fingerprint[:12]}. Use the same weights, or "
        "train a generator for this one with reproductions/train_generator.py."
    )


def test_a_file_never_chooses_the_encoder(kept: Path, tmp_path: Path) -> None:
    found = load_generator(kept)
    other = replace(found, read=Reader(tiny_cnn(), found.read.side))
    other.save(tmp_path)
    with pytest.raises(ModelError, match="never loads an encoder only because a file names it"):
        load_generator(tmp_path)
    assert load_generator(tmp_path, own=tiny_cnn()).read.encoder.name == "tiny"


def test_what_is_no_generator_is_told(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no generator .* Train one with reproductions"):
        load_generator(tmp_path)
    data = bytearray((kept / "generator.safetensors").read_bytes())
    for damaged in (data[:-50], b"\x00" * 64):
        (tmp_path / "generator.safetensors").write_bytes(damaged)
        with pytest.raises(WeightsError, match="is damaged or no generator"):
            load_generator(tmp_path)


def test_few_pictures_and_broken_ones_are_named(samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"10 different picture\(s\) can be read. A generator needs 16 or more"):
        QUICK.fit(tiny_cnn(), samples.items[:10])
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    heard = Progress()
    broken = replace(samples.items[0], image=str(tmp_path / "x.png"))
    found = replace(QUICK, n_steps=1).fit(tiny_cnn(), [*samples.items, broken], progress=heard)
    assert [f.image for f in heard.failures] == [str(tmp_path / "x.png")]
    assert found.facts["n_pictures"] + found.facts["n_held_out"] == 24
    with pytest.raises(InputError, match=r"`side` must be one of 16, 32, 64, 128, .* got side=20"):
        FitGenerator(side=20)


def run(*given: object) -> tuple[int, dict[str, Any], str]:
    done = CliRunner().invoke(app, ["study", "generate", *map(str, given), "--json", "-q"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return 2, {}, str(done.exception)
    return done.exit_code, json.loads(done.stdout), ""


LOOK = ("-e", "new:resnet/16", "--engine", "torch", "--set", "n_steps=4")


@pytest.fixture(scope="module")
def model(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> seewhy.Classifier:
    return seewhy.fit(str(folders), find("new:resnet/16", engine="torch"), n_crops=0)


def test_a_class_is_made_judged_and_beside_its_controls(kept: Path, model: seewhy.Classifier, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    given = ("-m", tmp_path / "model", *LOOK, kept, "--class", model.classes[0], "--set", "n=3")
    code, said, _ = run(*given, "--judge", "new:vit/16", "-o", tmp_path / "made")
    assert code == 0
    assert [row["way"] for row in said["ways"]] == ["ppgn", "no_prior", "pixels"]
    assert [c["file"] for c in said["chains"]][:3] == ["ppgn-1.png", "ppgn-2.png", "ppgn-3.png"]
    assert said["judge"]["name"] == "zero_shot on new:vit/16"
    own = [c for c in said["chains"] if c["way"] == "ppgn"]
    assert said["ways"][0]["judged"] == sum(c["judged"]["agrees"] for c in own) / 3
    assert said["ways"][0]["value"] == pytest.approx(np.mean([c["values"][-1] for c in own]), abs=1e-4)
    page = (tmp_path / "made" / "generate.html").read_text()
    assert page.count("<img") == 9 * len(own[0]["steps"])
    assert f"A second network recognises {model.classes[0]} in " in page
    assert json.loads((tmp_path / "made" / "generate.json").read_text()) == said
    with Image.open(tmp_path / "made" / "ppgn-1.png") as image:
        assert image.size == (16, 16)
    assert len(list((tmp_path / "made").glob("*.png"))) == 9
    code, again, _ = run(*given, "--judge", "new:vit/16", "-o", tmp_path / "made")
    assert again == said


def test_not_judged_is_said(kept: Path, model: seewhy.Classifier) -> None:
    made = seewhy.generate(kept, model, target=model.classes[1], n=2, controls=False, sampler=SHORT)
    assert made.data["sentence"].startswith(
        "No second network has judged these pictures (--judge). new:resnet/16, which guided them"
    )
    assert (made.data["judge"], made.data["ways"][0]["judged"], made.data["ways"][0]["diversity"]) == (None, None, None)
    assert "No second network has judged these pictures (--judge)." in made.to_html()
    assert [p.shape for p in made.pictures] == [(16, 16, 3)] * 2


def test_every_question_has_an_answer(kept: Path, folders: Path, model: seewhy.Classifier) -> None:
    photo = next(folders.rglob("*.png"))
    asked: list[dict[str, Any]] = [
        {"neuron": 17},
        {"text": "a photo of moss"},
        {"like": str(photo)},
        {"target": 0, "like": str(photo)},
    ]
    kinds = []
    for one in asked:
        made = seewhy.generate(kept, model, n=2, sampler=PPGN(n_steps=2), **one)
        kinds.append((made.data["kind"], made.data["start"].split()[1]))
        assert made.to_html()
    assert [k[0] for k in kinds] == ["neuron", "text", "like", "class"]
    assert [k[1] for k in kinds] == ["means", "means", "means", "picture"]


def test_what_does_not_fit_is_told(kept: Path, folders: Path, model: seewhy.Classifier) -> None:
    code, _, told = run(*LOOK, "--labels", "wren,owl", kept, "--class", "wran")
    assert (code, told.splitlines()) == (
        2,
        ["There is no class 'wran' among the 2 classes. Did you mean 'wren'?"],
    )
    with pytest.raises(InputError, match=r"`neuron` must be from 0 to 255, a unit of .*, got 256"):
        seewhy.generate(kept, model, neuron=256)
    with pytest.raises(InputError, match=r"Only one target may be given, got class, text\."):
        Question("a", "b")
    with pytest.raises(InputError, match="A target must be given"):
        Question()
    with pytest.raises(InputError, match="needs a classifier, got the encoder 'tiny'"):
        Question("moss").condition(tiny_cnn())
    with pytest.raises(ModelError, match=r"cannot read pictures with a side of 2 pixels"):
        Reader(tiny_cnn(), 2)


def test_files_of_others_are_left_alone(kept: Path, folders: Path, tmp_path: Path) -> None:
    (tmp_path / "generator.safetensors").write_text("mine")
    (tmp_path / "generate.html").write_text("mine")
    with pytest.raises(ForeignFileError):
        training.main([str(folders), "-o", str(tmp_path), "-e", "new:resnet/16"])
    code, _, told = run(*LOOK, "--labels", "a,b", kept, "--class", "a", "-o", tmp_path)
    assert (code, "did not write it" in told) == (2, True)
