"""An encoder that learns with its decoder: which weights do, that it is kept and comes back, and what it costs."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from typer.testing import CliRunner

from coloured import colours, masked
from seewhy.cli import app
from seewhy.dense.denseclip import DenseCLIP
from seewhy.dense.mask_training import Crops, FromPixels, labels_in
from seewhy.dense.reader import Reader
from seewhy.dense.saving import load_segmenter, save_segmenter
from seewhy.encoders.base import Encoder, GlobalAverage, Layout
from seewhy.encoders.module import from_module
from seewhy.encoders.split import example_pixels
from seewhy.errors import InputError, ModelError
from seewhy.learning.encoders.image_copy import ImageCopy
from seewhy.pictures.pixel_classes import load_masks
from seewhy.progress import Progress
from seewhy.training.memory import training_cost
from seewhy.training.task import optimiser_of
from tiny import TRANSFORM, HashedWords, build, tiny_cnn, tiny_tokens
from tiny_transformer import tiny_vit
from tiny_words import opened as with_words

SHORT: dict[str, Any] = {"n_steps": 3, "batch_size": 3, "width": 8, "zoom": 1.0}


def stages(seed: int = 0) -> Encoder:
    """Maps of 16 and 8 cells, with a normalisation of batches and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trunk = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(6, 8, 3, 2, 1), nn.Tanh()
        )
        return build(trunk, GlobalAverage(), Layout())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked(tmp_path_factory.mktemp("masks") / "train", noise=20)


def free(encoder: Encoder, which: Any) -> set[str]:
    image = ImageCopy.before(encoder).learn(encoder, which)
    return {name for name, p in image.named_parameters() if p.requires_grad}


def test_which_weights_learn() -> None:
    encoder = stages()
    every = {f"trunk.{name}" for name, _ in encoder.trunk.named_parameters()}
    assert free(encoder, "none") == set()
    assert free(encoder, "all") == every
    assert free(encoder, "last_stage") == {"trunk.4.weight", "trunk.4.bias"}
    vit = tiny_vit()  # two blocks in the trunk, and one in the pooling
    behind = {name.split(".")[3] for name in free(vit, "last_stage") if name.startswith("trunk.module.blocks.")}
    assert behind == {"1"}
    assert any(name.startswith("pool.") for name in free(vit, "last_stage"))
    assert not any("head" in name for name in free(vit, "all"))  # the trunk does not use it
    assert "trunk.module.blocks.0.norm1.weight" in free(vit, "all")
    assert free(tiny_tokens(), "last_stage") == free(tiny_tokens(), "all")  # one layer of patches, and nothing before
    assert not any(p.requires_grad for p in encoder.trunk.parameters())
    image = ImageCopy.before(encoder).learn(encoder, "all")
    assert not image.trunk.training
    assert not any(module._forward_hooks for module in image.modules())


def test_which_weights_learn_where_layers_run_twice_or_none_lies_behind() -> None:
    larger = replace(TRANSFORM, input_size=(64, 64), resize=(64, 64))
    resnet = from_module(torchvision.models.resnet18(weights=None), transform=larger)
    assert {name.split(".")[1] for name in free(resnet, "last_stage")} == {"layer4"}  # its ReLU runs twice in a block
    assert len(free(resnet, "last_stage")) == 15
    assert free(tiny_cnn(), "last_stage") == free(tiny_cnn(), "all")  # behind its last block is no weight


def test_what_pools_by_attention_learns_too(data: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    pool, trunk = open_clip.modified_resnet.AttentionPool2d(4, 8, 2, 8), nn.Conv2d(3, 8, 8, 8)
    encoder = build(trunk, pool, Layout(), text=HashedWords(8))
    for attended in (False, True):
        task, crops, _ = task_of(encoder, data, train="all", attended=attended)
        batch = crops.data().batch(0, 3, 0)
        task.loss(task.features(batch), batch)["scores"].backward()
        slopes = {name: p.grad for name, p in task.image.pool.named_parameters() if p.grad is not None}
        learnt = {name for name, slope in slopes.items() if slope.abs().max() > 1e-5}  # others are rounding
        assert {"v_proj.weight", "c_proj.weight"} <= learnt
        assert ("q_proj.weight" in learnt) == ("positional_embedding" in learnt) == attended


def test_names_behind_contexts_learn_beside_it(data: Path, tmp_path: Path) -> None:
    given = load_masks(data)
    made = DenseCLIP(**SHORT, train="all", n_contexts=2).fit(with_words(), given)
    save_segmenter(made, tmp_path / "seg")
    again = load_segmenter(tmp_path / "seg", encoder=with_words())
    picture = given.items[0].image
    assert np.array_equal(again.segment(picture).scores, made.segment(picture).scores)


def task_of(encoder: Encoder, data: Path, **how: Any) -> tuple[FromPixels, Crops, DenseCLIP]:
    given, recipe = load_masks(data), DenseCLIP(**SHORT, **how)
    crops = Crops.of(recipe.reader(encoder), given, Progress())
    image = ImageCopy.before(encoder).learn(encoder, recipe.train)
    learner = encoder.but(trunk=lambda: image.trunk, head=image.pool, engine="torch")
    looks = Reader(learner, recipe.zoom, recipe.levels).encoder
    network = recipe._network(encoder, given.classes, crops)
    return FromPixels(network, recipe.tau, recipe.auxiliary, image, looks, recipe.cells), crops, recipe


def test_the_encoder_has_a_tenth_of_the_rate_and_learns_through_both_losses(data: Path) -> None:
    task, crops, how = task_of(stages(), data, train="all")
    groups = {
        id(p): group["multiple"] for group in optimiser_of(task, how.training).param_groups for p in group["params"]
    }
    assert {groups[id(p)] for p in task.image.parameters()} == {0.1}
    assert {groups[id(p)] for p in task.network.parameters()} == {1.0}
    batch = crops.data().batch(0, 3, 0)
    for term in ("decoded", "scores"):
        task.zero_grad()
        task.loss(task.features(batch), batch)[term].backward()
        assert all(float(p.grad.abs().sum()) > 0 for p in task.image.parameters() if p.grad is not None)
        assert sum(p.grad is not None for p in task.image.parameters()) == 6
    assert not task.image.training
    own, cosine, labels = task.eval().features(batch)
    features = task.looks.forward_features(batch["pixels"])
    levels = [features[:, :8], nn.functional.pixel_shuffle(features[:, 8:], 2)]
    expected = task.network(levels, *how.cells(task.looks, features))
    torch.testing.assert_close(own, expected[0])
    torch.testing.assert_close(cosine, expected[1])
    assert batch["flipped"].unique().tolist() == [False, True]
    assert torch.equal(labels, labels_in(batch["masks"], batch["boxes"][0], batch["flipped"][0], (32, 32)).long())


@pytest.mark.parametrize(
    ("kind", "which"), [("stages", "all"), ("stages", "last_stage"), ("vit", "all"), ("vit", "last_stage")]
)
def test_it_is_kept_with_what_changed_and_comes_back(kind: str, which: Any, data: Path, tmp_path: Path) -> None:
    make = stages if kind == "stages" else lambda: tiny_vit(text=HashedWords(16))
    given, encoder, progress = load_masks(data), make(), Progress()
    before = {name: t.clone() for name, t in encoder.trunk.state_dict().items()}
    made = DenseCLIP(**SHORT, train=which, lr=5e-2).fit(encoder, given, progress=progress)
    assert all(torch.equal(t, before[name]) for name, t in encoder.trunk.state_dict().items())
    changed = {name for name, t in made.base.trunk.state_dict().items() if not torch.equal(t, before[name])}
    assert {f"trunk.{name}" for name in changed} == {n for n in free(encoder, which) if n.startswith("trunk.")}
    assert made.base.fingerprint != encoder.fingerprint
    assert made.base.base is encoder
    assert made.trained_on == f"windows of 6 pictures with masks, cut at random 9 times, with the encoder ({which})"
    assert any("million weights are trained; a step of 3 samples takes about" in note for note in progress.notes)
    folder = tmp_path / "seg"
    save_segmenter(made, folder)
    card = json.loads((folder / "segmenter.json").read_text())
    assert card["encoder"] == json.loads(json.dumps(encoder.describe()))
    again = load_segmenter(folder, encoder=make())
    picture = given.items[0].image
    assert np.array_equal(again.segment(picture).scores, made.segment(picture).scores)
    assert again.base.fingerprint == made.base.fingerprint
    assert again.trained_on == made.trained_on
    save_segmenter(again, tmp_path / "twice")
    twice = load_segmenter(tmp_path / "twice", encoder=make())
    assert np.array_equal(twice.segment(picture).scores, made.segment(picture).scores)
    with pytest.raises(ModelError, match="with the fingerprint"):
        load_segmenter(folder, encoder=made.base)


@pytest.mark.slow
def test_what_a_frozen_map_cannot_tell_apart_is_learnt(data: Path) -> None:
    given = load_masks(data)

    def right(**how: Any) -> float:
        grey = build(Grey(), GlobalAverage(), Layout(), 3, text=HashedWords(3))
        made = DenseCLIP(n_steps=80, batch_size=4, width=8, lr=2e-2, zoom=1.0, crops=True, **how).fit(grey, given)
        parts = [(made.segment(i.image).mask == given.truth(i, (64, 48))[0]).mean() for i in given.items]
        return float(np.mean(parts))

    assert right(train="all") > right() + 0.15


class Grey(nn.Module):
    """A layer that adds up the colours, which are then gone."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 4, 4)
        with torch.no_grad():
            self.mix.weight.fill_(1 / 48)
            self.mix.bias.copy_(torch.tensor([0.0, 0.1, 0.2]))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x)


def test_normalisations_and_dropout_are_held(data: Path) -> None:
    encoder = stages()
    made = DenseCLIP(**SHORT, train="all").fit(encoder, load_masks(data))
    assert made.image is not None
    for name, buffer in made.image.trunk.named_buffers():
        assert torch.equal(buffer, dict(encoder.trunk.named_buffers())[name])
    task, crops, _ = task_of(encoder, data, train="all")
    batch = crops.data().batch(0, 3, 0)
    task.network.eval()
    once, twice = (task.features(batch)[0] for _ in range(2))
    assert torch.equal(once, twice)


def test_without_a_learning_encoder_windows_are_cut_anew_too(data: Path, tmp_path: Path) -> None:
    encoder, given = stages(), load_masks(data)
    made = DenseCLIP(**SHORT, crops=True).fit(encoder, given)
    assert made.base is encoder
    assert made.image is None
    assert made.trained_on == "windows of 6 pictures with masks, cut at random 9 times"
    save_segmenter(made, tmp_path / "seg")
    again = load_segmenter(tmp_path / "seg", encoder=stages())
    picture = given.items[1].image
    assert np.array_equal(again.segment(picture).scores, made.segment(picture).scores)


def test_the_cost_is_told_and_nothing_of_it_stays(data: Path) -> None:
    task, crops, how = task_of(stages(), data, train="all")
    before = {name: t.clone() for name, t in task.state_dict().items()}
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    said = training_cost(task, crops.data(), how.training)
    assert torch.equal(torch.rand(1), drawn)
    assert all(torch.equal(t, before[name]) for name, t in task.state_dict().items())
    assert all(p.grad is None for p in task.parameters())
    n = sum(p.numel() for p in task.parameters() if p.requires_grad) / 1e6
    assert said.startswith(f"{n:.1f} million weights are trained; a step of 3 samples takes about ")
    assert " and about 0.0 GB of memory, 3 steps about " in said


@pytest.mark.skipif(find_spec("openvino") is None, reason="the extra 'openvino' is not installed")
def test_the_fast_engine_runs_the_changed_trunk(data: Path) -> None:
    given, encoder = load_masks(data), stages()
    made = DenseCLIP(**SHORT, train="all", lr=5e-2).fit(encoder.but(engine="openvino"), given)
    assert made.encoder.engine.name == "openvino"
    pixels = example_pixels((32, 32), 2)
    torch.testing.assert_close(made.encoder.forward_features(pixels), made.encoder.trunk(pixels), atol=2e-2, rtol=2e-2)
    assert not torch.allclose(made.base.trunk(pixels), encoder.trunk(pixels), atol=1e-3)


def test_explanations_follow_the_changed_trunk(data: Path) -> None:
    given = load_masks(data)
    made = DenseCLIP(**SHORT, train="all", lr=5e-2).fit(stages(), given)
    picture = given.items[0].image
    why = made.explain(picture, where="occlusion", most=1)[0]
    assert made.pooled().reader.base is made.base
    assert why.prediction.label in made.classes


def test_a_stopped_training_goes_on_bit_for_bit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy.training.loop as loop

    how, given = DenseCLIP(**{**SHORT, "n_steps": 5}, train="all", lr=5e-2), load_masks(data)
    whole = how.fit(stages(), given)
    step = loop._Run.step

    def stops(self: Any, number: int, *more: Any) -> Any:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number, *more)

    monkeypatch.setattr(loop._Run, "step", stops)
    with pytest.raises(KeyboardInterrupt):
        how.fit(stages(), given, checkpoint=tmp_path / "kept")
    monkeypatch.setattr(loop._Run, "step", step)
    progress = Progress()
    resumed = how.fit(stages(), given, checkpoint=tmp_path / "kept", progress=progress)
    assert "resuming at step 4" in progress.notes
    assert resumed.base.fingerprint == whole.base.fingerprint
    for name, value in whole.scorer.tensors().items():
        assert torch.equal(value, resumed.scorer.tensors()[name]), name


def test_what_is_wrong_is_told() -> None:
    with pytest.raises(InputError, match=r"`train` of denseclip must be 'none', 'last_stage', 'late_stages' or 'all'"):
        DenseCLIP(train="some")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"The encoder 'tiny' has no trainable weights\."):
        ImageCopy.before(colours()).learn(colours(), "last_stage")


def test_from_the_command_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy.encoders.find

    monkeypatch.setattr(seewhy.encoders.find, "encoder", lambda name, engine: stages())
    sets = [word for name, value in SHORT.items() for word in ("--set", f"{name}={value}")]
    place = tmp_path / "seg"
    words = ["fit", str(data), "-o", str(place), "--task", "masks", "--set", "train=last_stage", "--json", *sets]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["trained_on"].endswith("cut at random 9 times, with the encoder (last_stage)")
    assert "million weights are trained; a step of 3 samples takes about" in done.stderr
    again = load_segmenter(place, encoder=stages())
    assert again.image is not None
    assert again.parameters["train"] == "last_stage"
