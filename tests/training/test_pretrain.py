"""Training on pictures alone: every objective learns, what is kept is what was trained, bad data is told by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import seewhy
from schemas import check
from seewhy.cli import app
from seewhy.encoders.base import GlobalAverage
from seewhy.encoders.find import encoder as find
from seewhy.errors import DataError, InputError
from seewhy.learning.objectives import objectives
from seewhy.learning.objectives.pictures import Queue, Vectors
from seewhy.learning.objectives.vectors import LOOK, SupCon
from seewhy.learning.pretrain import TUNING_LR, Pretrain, Views
from seewhy.pictures.datasets import samples_or_pictures
from seewhy.pictures.samples import Sample, Samples, load_pictures
from seewhy.progress import Progress
from seewhy.studies.adapting import probe, run_report
from seewhy.training.batches import TrainingData
from seewhy.training.loop import train
from tiny import CLASSES, class_folders, noise, picture, tiny_cnn

VECTORS = [name for name in objectives if issubclass(objectives[name], Vectors)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("textures") / "all", 8)


@pytest.fixture(scope="module")
def samples(folders: Path) -> Samples:
    return load_pictures(folders)


def quick(objective: Any = "supcon", **settings: Any) -> Pretrain:
    given = {"epochs": 12, "batch_size": 8, "lr": 3e-3, "projection_width": 8, "augmentation": "crops", **settings}
    return Pretrain(objective=objective, **given)


@pytest.mark.parametrize("name", VECTORS)
def test_each_learns_and_the_start_stays_as_it_was(name: str, samples: Samples) -> None:
    on = tiny_cnn()
    before = {n: t.clone() for n, t in on.trunk.state_dict().items()}
    done = quick(name, epochs=25).fit(on, samples.items)
    loss = [step["loss"] for step in done.done.history]
    assert np.mean(loss[-5:]) < 0.9 * np.mean(loss[:5])
    assert all(torch.equal(t, before[n]) for n, t in on.trunk.state_dict().items())
    encoder = done.encoder
    assert not encoder.has_text
    assert (encoder.classifier, encoder.classes, encoder.base) == (None, (), on)
    assert (encoder.encode(noise(2)).pooled - on.encode(noise(2)).pooled).abs().max() > 1e-3
    assert (len(done.train), len(done.held)) == (21, 3)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("projection", ["none", "linear", "mlp", "fixed"])
def test_what_is_kept_comes_back_from_its_folder(projection: Any, keep: bool, samples: Samples, tmp_path: Path) -> None:
    on = find("new:resnet/16", engine="torch")
    done = quick(projection=projection, keep_head=keep, epochs=1).fit(on, samples.items)
    done.save(tmp_path / "enc")
    again = seewhy.encoder(str(tmp_path / "enc"), engine="torch")
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = again.encode(pixels).pooled
    torch.testing.assert_close(found, done.encoder.encode(pixels).pooled)
    assert found.shape[1] == (8 if keep and projection in ("linear", "mlp") else 256)
    assert isinstance(again.head, GlobalAverage) is not keep
    assert again.fingerprint == done.encoder.fingerprint


def test_the_fixed_head_that_is_kept_weighs(samples: Samples) -> None:
    on = tiny_cnn()
    kept, plain = (quick(projection="fixed", kappa=2.0, keep_head=k, epochs=1).fit(on, samples.items) for k in (1, 0))
    ratio = kept.encoder.encode(noise(2)).pooled / plain.encoder.encode(noise(2)).pooled
    torch.testing.assert_close(ratio, 2.0 ** -torch.arange(8).float().expand(2, 8))


def test_a_stopped_training_goes_on_with_its_slow_copy_and_its_queue(samples: Samples, tmp_path: Path) -> None:
    how = quick(LOOK(k=3, n_store=16, momentum=0.9), epochs=6)

    def run(checkpoint: Path | None, n: int | None = None) -> Views:
        on, progress = tiny_cnn(), Progress()
        own, _ = how.look(on, samples.items, None, progress).split(how.held_out, how.seed)
        _, task, data = how.prepared(on, own, progress)
        training = how.training(data, on)
        object.__setattr__(training, "checkpoint_every", 1)
        if n is not None:
            beside, steps = data.batches, range(n)
            object.__setattr__(data, "batches", lambda _, *args: beside(steps, *args))
            with pytest.raises((StopIteration, RuntimeError)):
                train(task, data, training, checkpoint=(checkpoint, "x"))  # type: ignore[arg-type]
            return task  # type: ignore[return-value]
        train(task, data, training, checkpoint=None if checkpoint is None else (checkpoint, "x"))
        assert isinstance(task, Views)
        return task

    whole = run(None)
    run(tmp_path / "cut", 5)
    cut = run(tmp_path / "cut")
    assert whole.slow is not None
    assert isinstance(whole.beside, Queue)
    assert len(whole.beside.held()[0]) == 16
    for name, value in whole.state_dict().items():
        assert torch.equal(value, cut.state_dict()[name]), name


def test_parts_of_a_batch_give_the_gradient_of_the_whole(samples: Samples) -> None:
    for objective in (SupCon(n_store=16), LOOK(k=3, n_store=16)):
        ends = [quick(objective, epochs=2, micro_batch=m).fit(tiny_cnn(), samples.items) for m in (None, 3)]
        one, two = (done.encoder.encode(noise(2)).pooled for done in ends)
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_how_it_is_trained_follows_from_what_is_asked_for(samples: Samples) -> None:
    data, on = TrainingData(100, {}), tiny_cnn()
    how = quick(epochs=4, batch_size=30, lr=0.01, weight_decay=0.2).training(data, on)
    assert (how.n_steps, how.batch_size, how.lr, how.weight_decay) == (12, 30, 0.01, 0.2)
    assert (how.schedule, how.warmup, how.micro_batch) == ("cosine", 2, None)
    assert quick(lr=None).training(data, on).lr == TUNING_LR
    assert quick(batch_size=30, micro_batch=5).training(data, on).micro_batch == 5
    asked = quick()
    own, held = asked.look(on, samples.items, None, Progress()).split(0.25, 0)
    _, _, read = asked.prepared(on, own, Progress())
    assert [own.classes[i] for i in read.columns["labels"].tolist()] == [s.label for s in own.items]
    assert read.pictures is not None
    assert (read.pictures.augmentation, read.pictures.n_views) == (asked.views(), 2)
    done = asked.fit(on, own.items, validation=held.items)
    assert [*done.adaptation.trained_on] == [*dict.fromkeys(own.digests)]
    assert [s.image for s in done.held.items] == [s.image for s in held.items]
    last = [step["loss"] for step in done.done.history][-20:]
    assert done.adaptation.provenance["loss"] == pytest.approx(np.mean(last), abs=1e-4)
    grouped = [Sample(s.image, s.label, group=str(i % 5)) for i, s in enumerate(samples.items)]
    sides = asked.look(on, grouped, None, Progress()).split(0.3, 0)
    assert {s.group for s in sides[0].items}.isdisjoint({s.group for s in sides[1].items})
    mixed = asked.look(on, [*samples.items[:3], Sample(samples.items[3].image)], None, Progress())
    assert mixed.classes == ()


def test_held_out_figures_are_counted_right(samples: Samples) -> None:
    done = quick(held_out=0.5).fit(tiny_cnn(), samples.items)
    report = run_report(done)
    assert [row["measure"] for row in report.data["measures"]] == ["class by 12 neighbours", "class by a linear probe"]
    assert all(row["n"] == 12 for row in report.data["measures"])
    assert all(row["before"] > 0.6 for row in report.data["measures"]), "colours are seen by any network"
    assert "Neighbours predict" in report.to_html()
    x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    assert probe(x, torch.tensor([0, 0, 1, 1]), torch.tensor([[-1.0], [9.0]]), 2, torch.zeros(4).bool()).tolist() == [
        0,
        1,
    ]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (
            [Sample("a.png", "x"), Sample("b.png", "x")],
            (
                "The objective supcon needs at least 2 classes, but all 2 pictures have the class "
                "'x'. Add another class, or use an objective without classes."
            ),
        ),
        (
            [Sample("a.png", "x"), Sample("b.png", "y")],
            (
                "The objective supcon needs a class with at least 2 pictures, but each of the 2 "
                "classes has only one. Add pictures, or use an objective without classes."
            ),
        ),
        (
            [Sample("a.png", "x"), Sample("b.png")],
            (
                "The objective supcon needs a class for each picture, but 1 of 2 pictures have none: "
                "b.png. Give the column of classes, or use an objective without classes."
            ),
        ),
    ],
)
def test_classes_that_teach_nothing_are_told(items: list[Sample], said: str) -> None:
    with pytest.raises(DataError) as caught:
        quick().fit(tiny_cnn(), items)
    assert str(caught.value) == said


def test_pictures_on_both_sides_and_under_two_classes_are_named(folders: Path, tmp_path: Path) -> None:
    items = [*load_pictures(folders).items]
    twin = tmp_path / "twin.png"
    twin.write_bytes(Path(items[0].image).read_bytes())
    held = [Sample(str(twin), "moss")]
    progress = Progress()
    quick(epochs=1).fit(tiny_cnn(), [*items, Sample(str(twin), "rust")], validation=held, progress=progress)
    assert progress.notes == [
        "1 picture(s) are in both the training and the validation data, which biases the choice of keep: "
        f"{twin} is {twin}",
        f"some pictures occur twice with different classes: {items[0].image}, {twin}",
    ]


def test_one_picture_is_too_few_and_a_loss_that_is_none_is_told(samples: Samples) -> None:
    alike = [Sample(samples.items[0].image) for _ in range(5)]
    with pytest.raises(DataError, match="At least four different pictures with texts are required, got"):
        quick("simclr").fit(tiny_cnn(), alike)
    with pytest.raises(InputError, match=r"^`batch_size` of pretrain must be a whole number of at least 2"):
        quick(batch_size=1)
    with pytest.raises(InputError, match=r"^The loss is not finite at step"):
        quick(lr=1e30).fit(tiny_cnn(), samples.items)
    with pytest.raises(InputError, match=r"^`objective` must learn from pictures only, got 'clip', .*\. Use one of "):
        quick("clip")


def test_from_python_in_any_form(samples: Samples, folders: Path, tmp_path: Path) -> None:
    arrays = [picture(label, i) for label in CLASSES[:2] for i in range(6)]
    labels = [label for label in CLASSES[:2] for _ in range(6)]
    how: dict[str, Any] = {"epochs": 1, "batch_size": 4, "augmentation": "crops"}
    assert len(seewhy.pretrain(arrays, tiny_cnn(), objective="simclr", **how).train) == 10
    assert seewhy.pretrain((arrays, labels), tiny_cnn(), objective="supcon", **how).train.classes == ("moss", "rust")
    assert len(samples_or_pictures(np.stack(arrays))) == 12
    assert samples_or_pictures(samples) is samples
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(4):
        Image.fromarray(picture("moss", i)).save(flat / f"{i}.png")
    assert [Path(s.image).name for s in samples_or_pictures(flat).items] == ["0.png", "1.png", "2.png", "3.png"]
    assert {s.label for s in load_pictures(flat).items} == {""}
    (flat / "t.csv").write_text("image,kind\n0.png,a\n1.png,b\n,c\n")
    table = load_pictures(flat / "t.csv")
    assert ([s.label for s in table.items], table.notes) == (["", ""], ("left out 1 row(s) without picture: 3",))
    assert [s.label for s in load_pictures(flat / "t.csv", label="kind").items] == ["a", "b"]
    assert [s.group for s in load_pictures(flat / "t.csv", group="kind").items] == ["a", "b"]
    with pytest.raises(InputError, match=r"^keep has no effect with the objective 'simclr'\."):
        seewhy.pretrain(flat, tiny_cnn(), objective="simclr", keep=0.5)


@pytest.fixture
def cli(folders: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda name, engine: tiny_cnn())

    def call(*options: object) -> Any:
        quickly = ["--epochs", "2", "--set", "batch_size=8", "--store", "none", "--augmentation", "crops"]
        return CliRunner().invoke(app, ["pretrain", str(folders), *map(str, options), *quickly])

    return call


def test_the_verb_writes_what_it_says(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("-o", tmp_path / "enc", "--objective", "look", "--set", "k=3", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    check("pretrain-pictures", [told])
    check("pretrain", [told])
    assert told["run"]["provenance"]["settings"]["k"] == 3
    assert told["n_pictures"] + told["n_held_out"] == 24
    files = {p.name.partition("-")[0] for p in (tmp_path / "enc").iterdir()}
    assert files == {"encoder.json", "tensors", "run.html", "run.json", "log.csv"}
    kept = json.loads((tmp_path / "enc" / "run.json").read_text("utf-8"))
    assert len(kept["run"]["history"]) == told["run"]["provenance"]["n_steps"] == 4
    assert (tmp_path / "enc" / "log.csv").read_text().startswith("step,loss,spread,own_class,neighbours\n1,")
    assert [p.name for p in tmp_path.iterdir()] == ["enc"]


def test_what_it_would_cost_and_options_that_do_not_fit(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("-o", tmp_path / "enc", "--objective", "simclr", "--dry-run", "--json")
    told = json.loads(done.stdout)
    check("pretrain", [told])
    assert (told["n_pictures"], told["n_texts"], told["n_steps"], (tmp_path / "enc").exists()) == (24, 0, 4, False)
    wrong = cli("-o", tmp_path / "enc", "--objective", "simclr", "--column", "text=words")
    assert str(wrong.exception) == (
        "--column text has no effect with the objective 'simclr'. Remove it, or use another objective."
    )
    wrong = cli("-o", tmp_path / "enc", "--objective", "siglip", "--projection", "none")
    assert str(wrong.exception).startswith("--projection has no effect with the objective 'siglip'.")
