"""A classifier as one graph: its own numbers in its own runtime, and a folder that servers could read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.cli import app
from seewhy.encoders.base import GlobalAverage, Layout
from seewhy.errors import DataError, ForeignFileError, MissingExtraError, ModelError
from seewhy.heads.head import Head
from seewhy.heads.normalise import Normalise
from seewhy.heads.votes import Votes
from seewhy.progress import Progress
from seewhy.service import export as exporting
from seewhy.service.export import CARD, INPUTS, OUTPUTS, Exported, Graph, export, open_graph
from seewhy.types import Transform
from tiny import TRANSFORM, build, tiny_cnn, tiny_tokens

DOCS = Path(__file__).resolve().parents[2] / "docs"


def normalised() -> Classifier:
    """Square roots at unit length, then a linear layer, as ``fit --power 0.5`` makes it."""
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(3))
    return Classifier("linear", {}, tiny_cnn(), ("a", "b", "c"), Head(Normalise(0.5, True), weight, torch.ones(3), 4.0))


def voted() -> Classifier:
    """Seven pictures of three classes, of which four vote."""
    rows = torch.randn(7, 8, generator=torch.Generator().manual_seed(4))
    votes = Votes(torch.tensor([0, 1, 2, 0, 1, 2, 2]), 3, 4)
    return Classifier("neighbours", {}, tiny_cnn(), ("a", "b", "c"), Head(Normalise(1.0, True), rows, votes=votes))


def of_tokens() -> Classifier:
    """Words on a class token, whose head is linear in nothing."""
    return seewhy.zero_shot(["moss", "rust", "sky"], tiny_tokens())


def oblong() -> Classifier:
    """Pictures higher than wide: 32 by 24 pixels, 8 by 6 cells."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = build(nn.Conv2d(3, 8, 4, 4), GlobalAverage(), Layout())
    encoder.transform = Transform((32, 24), 40, "bicubic", TRANSFORM.mean, (0.2, 0.25, 0.3))
    return seewhy.pretrained(encoder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Exported]:
    """The oblong one in ONNX, whose files the tests below look at and never change."""
    classifier = oblong()
    return classifier, export(classifier, tmp_path_factory.mktemp("graphs") / "out")


def written(tmp_path: Path, picture: np.ndarray) -> Path:
    Image.fromarray(picture).save(path := tmp_path / "one.png")
    return path


def test_it_says_what_predict_and_explain_say(made: tuple[Classifier, Exported], tmp_path: Path) -> None:
    classifier, exported = made
    views = exporting.drawn((32, 24), 5, seed=9)
    run = open_graph(exported.folder)
    found = run(views, np.array([[-1], [0], [1], [2], [3]]))
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, atol=1e-6)
    for i, view in enumerate(views):
        # 32 by 24 becomes 53 by 40 by its own transform, so the same pixels are had by one that leaves them alone.
        picture = Image.fromarray(view)
        plain = classifier.encoder.but(transform=replace(classifier.encoder.transform, resize=(32, 24)))
        same = replace(classifier, encoder=plain)
        np.testing.assert_allclose(same.predict_proba(picture)[0], found["probabilities"][i], atol=1e-4)
        target = None if i == 0 else same.classes[i - 1]
        where = same.explain(picture, where="grad_cam", target=target, measure=False).where
        assert where.target == same.classes[found["explained"][i, 0]]
        size = np.abs(where.heat).max()
        np.testing.assert_allclose(where.heat / size, found["heat"][i] / size, atol=1e-3)  # its maps are kept as halves


@pytest.mark.parametrize("make", [normalised, voted, of_tokens])
def test_heads_of_all_kinds_are_the_same_as_graphs(make: Any) -> None:
    """In torch, where the graph is traced; the formats are held to it by the check at export."""
    classifier = make()
    graph = Graph(classifier)

    def run(picture: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = graph(torch.from_numpy(picture), torch.from_numpy(index))
        return dict(zip(("logits", "probabilities", "heat", "explained"), (f.numpy() for f in found), strict=True))

    found = exporting.compare(classifier, run, exporting.drawn((32, 32), 4))
    assert max(found.values()) < 1e-5
    heat = run(exporting.drawn((32, 32), 1), np.array([[1]]))["heat"]
    assert np.abs(heat).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("make", [normalised, voted, of_tokens])
def test_every_head_is_exported_and_read_by_openvino(make: Any, tmp_path: Path) -> None:
    classifier = make()
    made = export(classifier, tmp_path / "out")
    assert max(made.card["check"]["differences"].values()) <= 1e-4
    assert max(exporting.compare(classifier, in_openvino(made.graph), exporting.drawn((32, 32), 3)).values()) <= 1e-4


def test_it_says_which_part_takes_how_long(tmp_path: Path) -> None:
    said: list[str] = []

    class Listening(Progress):
        def doing(self, what: str) -> Any:
            said.append(what)
            return super().doing(what)

    export(seewhy.pretrained(tiny_cnn()), tmp_path / "graph", progress=Listening())
    assert said == ["Writing the graph", "Comparing the graph with SeeWhy"]


def test_the_card_says_all(made: tuple[Classifier, Exported]) -> None:
    classifier, exported = made
    card = json.loads((exported.folder / CARD).read_text())
    assert {key: value for key, value in card.items() if key != "sha256"} == exported.card
    assert card["classes"] == list(classifier.classes)
    assert card["preprocessing"]["by_the_graph"] == {"divide_by": 255, "mean": [0.5] * 3, "std": [0.2, 0.25, 0.3]}
    assert card["preprocessing"]["by_the_caller"]["resize_short_side"] == 40
    assert card["preprocessing"]["by_the_caller"]["centre_crop"] == [32, 24]
    assert [(t["name"], t["shape"]) for t in (*card["inputs"], *card["outputs"])] == [
        ("picture", ["batch", 32, 24, 3]), ("class_index", ["batch", 1]), ("logits", ["batch", 4]),
        ("probabilities", ["batch", 4]), ("heat", ["batch", 8, 6]), ("explained", ["batch", 1]),
    ]  # fmt: skip
    assert set(card["files"]) == {"model.onnx", "labels.txt"}
    assert card["opset"] >= 18
    assert 0 < max(card["check"]["differences"].values()) <= 1e-4
    assert (exported.folder / "labels.txt").read_text() == "moss\nrust\nsky\nsand\n"


def test_the_graphs_own_file_says_classes_and_preprocessing(made: tuple[Classifier, Exported]) -> None:
    import onnx

    _, exported = made
    facts = {one.key: one.value for one in onnx.load(exported.graph).metadata_props}
    assert facts["seewhy"] == exported.card["seewhy"]
    assert json.loads(facts["seewhy.classes"]) == exported.card["classes"]
    assert json.loads(facts["seewhy.preprocessing"]) == exported.card["preprocessing"]
    assert json.loads(facts["seewhy.encoder"]) == exported.card["encoder"]


def test_the_example_of_the_docs_runs_without_seewhy(made: tuple[Classifier, Exported], tmp_path: Path) -> None:
    classifier, exported = made
    code = re.search(r"<!-- example -->\n```python\n(.*?)```", (DOCS / "export.md").read_text("utf-8"), re.DOTALL)
    assert code is not None
    photo = written(tmp_path, exporting.drawn((90, 71), 1)[0])
    hide = "import sys; sys.modules['seewhy'] = sys.modules['torch'] = None\n"
    command = [
        sys.executable,
        "-W",
        "error::DeprecationWarning",
        "-c",
        hide + code[1],
        str(exported.folder),
        str(photo),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    why = classifier.explain(photo, where="grad_cam", measure=False)
    hottest = np.unravel_index(why.where.heat.argmax(), why.where.heat.shape)
    assert done.stdout.startswith(f"{why.prediction.label} {why.prediction.score:.4f} ")
    assert [int(n) for n in re.findall(r"int64\((\d+)\)", done.stdout)] == [int(n) for n in hottest]
    assert len(code[1].strip().splitlines()) <= 17


def in_openvino(graph: Path) -> Any:
    """What OpenVINO runs of the file, as its model server does."""
    from seewhy.encoders.convert import openvino_core

    compiled = openvino_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(picture: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled(dict(zip(INPUTS, (picture, index), strict=True)))
        return {name: np.array(found[name]) for name in OUTPUTS}

    return run


def test_openvino_reads_the_graph(made: tuple[Classifier, Exported]) -> None:
    classifier, exported = made
    run = in_openvino(exported.graph)
    assert max(exporting.compare(classifier, run, exporting.drawn((32, 24), 3)).values()) <= 1e-4


def test_an_own_folder_is_replaced_and_any_other_left(made: tuple[Classifier, Exported], monkeypatch: Any) -> None:
    classifier, exported = made
    folder = exported.folder.parent / "again"
    monkeypatch.setattr(exporting, "write_graph", lambda *_: 18)
    monkeypatch.setattr(exporting, "open_graph", lambda *_: run_of(classifier))
    export(classifier, folder)
    export(replace(classifier, recipe="linear"), folder)
    assert json.loads((folder / CARD).read_text())["recipe"] == "linear"
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ForeignFileError, match="is not an unchanged export of SeeWhy"):
        export(classifier, folder)
    (folder / "notes.txt").unlink()
    (folder / "labels.txt").write_text("mine")
    with pytest.raises(ForeignFileError):
        export(classifier, folder)
    assert (folder / "labels.txt").read_text() == "mine"


def run_of(classifier: Classifier, away: str = "", by: float = 0.0) -> Any:
    """A runtime that says what SeeWhy says, with one output moved."""

    def run(picture: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
        asked = None if (index < 0).all() else torch.from_numpy(index[:, 0])
        found = {n: t.numpy() for n, t in exporting.answers(classifier, picture, asked).items()}
        return found | ({away: found[away] + np.asarray(by, found[away].dtype)} if away else {})

    return run


@pytest.mark.parametrize(("output", "by"), [("logits", 0.01), ("probabilities", 2e-4), ("heat", 1.0), ("heat", np.nan)])
def test_a_graph_that_answers_otherwise_leaves_nothing(
    output: str, by: float, tmp_path: Path, monkeypatch: Any
) -> None:
    classifier = oblong()
    monkeypatch.setattr(exporting, "write_graph", lambda *_: 18)
    monkeypatch.setattr(exporting, "open_graph", lambda *_: run_of(classifier, output, by))
    with pytest.raises(ModelError, match="The outputs of the graph must differ from SeeWhy's by at most"):
        export(classifier, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_class_chosen_must_be_the_likeliest_and_the_one_asked_for() -> None:
    classifier = oblong()
    views = exporting.drawn((32, 24), 4)

    def always(index: int) -> Any:
        return lambda picture, _: run_of(classifier)(picture, np.full((len(picture), 1), index))

    for index in range(4):
        with pytest.raises(ModelError, match="The outputs of the graph must differ from SeeWhy's by at most"):
            exporting.compare(classifier, always(index), views)


def test_what_a_format_cannot_write_is_named(
    made: tuple[Classifier, Exported], tmp_path: Path, monkeypatch: Any
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no operation aten.bucketize")

    monkeypatch.setattr(exporting, "write_graph", fail)
    with pytest.raises(
        ModelError, match=r"This classifier cannot be exported to ONNX \(RuntimeError: no operation aten\.bucketize\)"
    ):
        export(made[0], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Branching:
    """Reads its numbers to decide what to do."""

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        return pooled if float(pooled.detach().sum()) > 0 else 2 * pooled

    def slope(self, pooled: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return rows


def test_what_cannot_be_a_graph_is_named(tmp_path: Path) -> None:
    classifier = replace(normalised(), head=Head(Branching(), torch.randn(3, 8)), recipe="mine")
    with pytest.raises(
        ModelError,
        match=r"A 'mine' classifier on 'tiny' cannot be exported, .* depends on the values of its input \(",
    ):
        export(classifier, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_named(made: tuple[Classifier, Exported], tmp_path: Path, monkeypatch: Any) -> None:
    classifier, _ = made
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="None of the pictures for the comparison can be read"):
        export(classifier, tmp_path / "out", pictures=[tmp_path / "broken.png"])
    monkeypatch.setattr(exporting, "NEEDS", ("not_a_module_of_anyone",))
    with pytest.raises(MissingExtraError, match=r"seewhy\[onnxruntime\]"):
        export(classifier, tmp_path / "out")


def test_the_command_names_pictures_it_cannot_read(tmp_path: Path, monkeypatch: Any) -> None:
    """On the embedded encoder's place a tiny one stands."""
    classifier = oblong()
    monkeypatch.setattr("seewhy.cli.options.ClassifierChoice.opened", lambda *_: classifier)
    monkeypatch.setattr(exporting, "write_graph", lambda *_: 18)
    monkeypatch.setattr(exporting, "open_graph", lambda *_: run_of(classifier))
    (tmp_path / "photos").mkdir()
    written(tmp_path / "photos", exporting.drawn((40, 50), 1)[0])
    (tmp_path / "photos" / "two.png").write_bytes(b"\x89PNG")
    arguments = ["export", "-o", str(tmp_path / "out"), "--json", "--check-on"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "photos")])
    said = json.loads(done.stdout)
    assert done.exit_code == 0, done.stderr
    assert [Path(f["image"]).name for f in said["failures"]] == ["two.png"]
    assert (said["check"]["pictures"], said["check"]["drawn"]) == (1, False)
    assert said["graph"] == "model.onnx"
