"""Training on the cells of pictures: what is kept comes back, with a pyramid or without; what does not fit is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import seewhy
from schemas import check
from seewhy.cli import app
from seewhy.encoders.base import GlobalAverage
from seewhy.encoders.find import encoder as find
from seewhy.errors import InputError, ModelError
from seewhy.learning.encoders.pyramid import Pyramid
from seewhy.learning.objectives.regional import PixPro
from seewhy.learning.pretrain import Pretrain
from seewhy.pictures.samples import Samples, load_pictures
from tiny import class_folders, noise, tiny_cnn


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return load_pictures(class_folders(tmp_path_factory.mktemp("textures") / "all", 4))


def quick(objective: Any = "pixpro", **settings: Any) -> Pretrain:
    given = {"epochs": 1, "batch_size": 8, "lr": 3e-3, "projection_width": 8, "augmentation": "crops", **settings}
    return Pretrain(objective=objective, **given)


def test_cells_come_to_agree_and_the_start_stays_as_it_was(samples: Samples) -> None:
    on = tiny_cnn()
    before = {n: t.clone() for n, t in on.trunk.state_dict().items()}
    done = quick(PixPro(instance_weight=1.0), epochs=20).fit(on, samples.items)
    for term in ("cells", "whole"):
        values = [step[term] for step in done.done.history]
        assert np.mean(values[-4:]) < np.mean(values[:4]) - 0.5
    assert all(torch.equal(t, before[n]) for n, t in on.trunk.state_dict().items())
    found, old = done.encoder.encode(noise(2)), on.encode(noise(2))
    assert found.features.shape == old.features.shape
    assert (found.features - old.features).abs().max() > 1e-3
    assert done.adaptation.provenance["settings"] | {"n_views": 2} == done.adaptation.provenance["settings"]


@pytest.mark.parametrize("pyramid", [False, True])
def test_what_is_kept_comes_back_from_its_folder(pyramid: bool, samples: Samples, tmp_path: Path) -> None:
    on = find("new:resnet/32", engine="torch")
    done = quick(pyramid=pyramid).fit(on, samples.items)
    done.save(tmp_path / "enc")
    again = seewhy.encoder(str(tmp_path / "enc"), engine="torch")
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = again.encode(pixels)
    torch.testing.assert_close(found.features, done.encoder.encode(pixels).features)
    assert found.features.shape == ((2, 128, 16, 16) if pyramid else (2, 256, 4, 4))
    torch.testing.assert_close(found.pooled, found.features.mean((2, 3)))
    assert isinstance(again.head, GlobalAverage)
    assert isinstance(again.trunk, Pyramid) is pyramid
    assert again.fingerprint == done.encoder.fingerprint
    assert not any(p.requires_grad for p in again.trunk.parameters())


def test_a_pyramid_that_is_kept_is_trained_in_all_its_layers(samples: Samples) -> None:
    on = find("new:resnet/32", engine="torch")
    tensors = quick(pyramid=True).fit(on, samples.items).adaptation.trained.delta(on)
    own = {name for name in tensors if not name.startswith("trunk.trunk.")}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    layers = ["out.{}.0.weight", "across.{}.weight", "across.{}.bias", *(f"out.{{}}.1.{name}" for name in norm)]
    assert own == {f"trunk.{layer.format(i)}" for layer in layers for i in range(3)}


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"width": True},
        {"width": 10**9},
        {"stages": []},
        {"stages": [{"layer": "none", "kind": "nchw", "width": 64, "grid": [8, 8]}] * 2},
        {"stages": [{"layer": "9", "kind": "nchw", "width": 64, "grid": [8, 8]},
                    {"layer": "", "kind": "nchw", "width": 256, "grid": [4, 4]}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_card_with_no_pyramid_in_it_is_damaged(change: dict[str, Any], samples: Samples, tmp_path: Path) -> None:
    trunk = find("new:resnet/32", engine="torch").trunk
    facts = {**Pyramid.on(find("new:resnet/32", engine="torch"), 4).facts(), **change}
    with pytest.raises((ValueError, AttributeError)):
        Pyramid.restored(trunk, find("new:resnet/32").layout, facts)


def test_a_head_of_another_form_is_on_every_cell(samples: Samples) -> None:
    on, progress = tiny_cnn(), seewhy.Progress()
    own = quick().look(on, samples.items, None, progress)
    _, task, _ = quick(projection="linear", projection_width=5).prepared(on, own, progress)
    assert isinstance(task.get_submodule("branch.cells.head"), nn.Linear)
    _, task, _ = quick().prepared(on, own, progress)
    kinds = [type(layer).__name__ for layer in task.get_submodule("branch.cells.head").children()]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear"]


def test_what_does_not_fit_is_told(samples: Samples) -> None:
    with pytest.raises(InputError) as caught:
        quick("simclr", pyramid=True)
    assert str(caught.value) == (
        "pyramid=True needs an objective on patches, got 'simclr', which learns from whole views. "
        "Leave pyramid out, or use another objective."
    )
    with pytest.raises(InputError) as caught:
        quick(keep_head=True)
    assert str(caught.value) == (
        "keep_head=True needs an objective on whole views, got 'pixpro', which learns from patches. "
        "Leave keep_head out, or use another objective."
    )
    with pytest.raises(ModelError, match=r"all maps of this encoder have 8 x 8 patches"):
        quick(pyramid=True).fit(find("new:vit/32", engine="torch"), samples.items)


def test_the_verb_sets_the_objective_and_keeps_the_pyramid(samples: Samples, tmp_path: Path) -> None:
    folder = Path(samples.items[0].image).parents[1]
    options = [
        "--engine",
        "torch",
        "--encoder",
        "new:resnet/32",
        "--objective",
        "pixpro",
        "--set",
        "form=contrast",
        "--set",
        "pyramid=true",
    ]
    quickly = [
        "--epochs",
        "1",
        "--set",
        "batch_size=8",
        "--store",
        "none",
        "--augmentation",
        "byol",
        "--json",
        "--quiet",
    ]
    done = CliRunner().invoke(app, ["pretrain", str(folder), "-o", str(tmp_path / "enc"), *options, *quickly])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    check("pretrain-pictures", [told])
    provenance = told["run"]["provenance"]
    assert (provenance["settings"]["form"], provenance["pyramid"]) == ("contrast", True)
    assert (tmp_path / "enc" / "log.csv").read_text().startswith("step,loss,cells,spread\n1,")
