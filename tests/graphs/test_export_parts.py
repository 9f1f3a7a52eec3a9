"""What an export is made of: how graphs are compared, what is written beside them, and whose folder it may be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.saving import digest
from seewhy.errors import DataError, ForeignFileError, InputError, ModelError
from seewhy.service import export as exporting
from seewhy.service.export import (
    CARD,
    FACTS,
    _differences,
    answers,
    compare,
    drawn,
    export,
    is_untouched,
    preprocessing,
)
from tiny import tiny_cnn

Found = dict[str, np.ndarray]
VIEWS = drawn((32, 32), 3)


def run_of(classifier: Classifier, change: Callable[[Found], Found] = lambda found: found, ask: bool = True) -> Any:
    """A runtime that says what SeeWhy says, changed; with ``ask`` false it explains what it decides for, whatever."""

    def run(picture: np.ndarray, index: np.ndarray) -> Found:
        asked = torch.from_numpy(index[:, 0]) if ask and (index >= 0).all() else None
        return change({name: t.numpy() for name, t in answers(classifier, picture, asked).items()})

    return run


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> Classifier:
    """One whose graph is traced, written and run by stand-ins."""
    made = seewhy.pretrained(tiny_cnn())
    monkeypatch.setattr(exporting, "Graph", lambda _: SimpleNamespace(program=lambda size: None))
    monkeypatch.setattr(exporting, "write_graph", lambda *_: 18)
    monkeypatch.setattr(exporting, "open_graph", lambda *_: run_of(made))
    return made


def turned(found: Found) -> Found:
    return {**found, "heat": found["heat"][:, :, :-1]}


def off_alone(found: Found) -> Found:
    return {**found, "logits": found["logits"] + (0.1 if len(found["logits"]) == 1 else 0)}


@pytest.mark.parametrize(("change", "ask"), [(turned, True), (off_alone, True), (lambda found: found, False)])
def test_a_graph_of_other_shapes_batches_or_classes_is_another(change: Any, ask: bool) -> None:
    classifier = seewhy.pretrained(tiny_cnn())
    assert max(compare(classifier, run_of(classifier), VIEWS).values()) == 0
    with pytest.raises(ModelError, match="The outputs of the graph must differ from SeeWhy's by at most"):
        compare(classifier, run_of(classifier, change, ask), VIEWS)


def test_differences_are_parts_of_a_pictures_own_largest() -> None:
    wanted = {
        "logits": torch.tensor([[0.2, 0.1], [-8.0, 4.0]]), "probabilities": torch.tensor([[0.6, 0.4], [0.0, 1.0]]),
        "heat": torch.tensor([[[1.0, -2.0]], [[100.0, 0.0]]]), "explained": torch.tensor([[0], [1]]),
    }  # fmt: skip

    def told(**moved: Any) -> tuple[float, ...]:
        got = {name: value + torch.tensor(moved.get(name, 0)) for name, value in wanted.items()}
        found = _differences(got, wanted, chosen=True)
        return tuple(round(found[name], 6) for name in ("logits", "probabilities", "heat"))

    assert told() == (0, 0, 0)
    assert told(logits=[[0.1, 0.0], [0.0, 0.0]]) == (0.1, 0, 0), "of 1, where all are smaller"
    assert told(logits=[[0.0, 0.0], [0.0, 0.4]]) == (0.05, 0, 0), "of 8"
    assert told(probabilities=[[0.0, 0.3], [0.0, 0.0]]) == (0, 0.3, 0)
    assert told(heat=[[[0.0, 0.5]], [[0.0, 0.0]]]) == (0, 0, 0.25)
    assert told(heat=[[[0.0, 0.0]], [[0.0, 0.5]]]) == (0, 0, 0.005)
    # A class that is not the likeliest was chosen: by a tenth of 1.
    other = {**wanted, "explained": torch.tensor([[1], [1]])}
    assert _differences(other, other, chosen=True)["logits"] == pytest.approx(0.1)
    assert _differences(other, other, chosen=False)["logits"] == 0


def test_the_card_tells_the_model_from_others(classifier: Classifier, tmp_path: Path) -> None:
    model = replace(classifier, classes=("a\nb", *classifier.classes[1:]), fitted_in="bf16")
    card = export(model, tmp_path / "out").card
    assert (card["fingerprint"], card["classifier"]) == (model.encoder.fingerprint, digest(model))
    assert (card["encoder"], card["recipe"], card["fitted_in"]) == ("tiny", "pretrained", "bf16")
    assert (card["precision"], card["opset"], card["to"]) == ("float32", 18, "onnx")
    assert set(card["made_with"]) == {"torch", "onnx", "onnxscript", "onnxruntime"}
    assert (tmp_path / "out" / "labels.txt").read_text().splitlines()[0] == "a b", "a line for each class"
    assert export(classifier, tmp_path / "plain").card["fitted_in"] is None


def test_the_caller_is_told_how_pictures_are_made() -> None:
    model = seewhy.pretrained(tiny_cnn())
    told = preprocessing(model)["by_the_caller"]
    assert (told["resize_short_side"], told["resize_to"], told["centre_crop"]) == (None, [32, 32], [32, 32])
    assert told["interpolation"] == "bilinear"
    model.encoder.transform = replace(model.encoder.transform, resize=40, interpolation="bicubic")
    told = preprocessing(model)["by_the_caller"]
    assert (told["resize_short_side"], told["resize_to"], told["interpolation"]) == (40, None, "bicubic")


def test_pictures_to_compare_on_may_be_one_and_are_a_few_at_most(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "MOST", 2)
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file in files:
        Image.fromarray(VIEWS[0]).save(file)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    made = export(classifier, tmp_path / "many", pictures=[tmp_path / "broken.png", *files])
    assert [Path(f.image).name for f in made.failures] == ["broken.png"]
    assert made.card["check"]["pictures"] == 2
    assert export(classifier, tmp_path / "one", pictures=files[0]).card["check"]["pictures"] == 1
    assert export(classifier, tmp_path / "none").card["check"] | {"runtime": "", "differences": {}} == {
        "pictures": 8, "drawn": True, "runtime": "", "against": "SeeWhy in eager torch, float32", "tolerance": 1e-4,
        "differences": {},
    }  # fmt: skip


def test_whose_folder_it_is_is_asked_before_the_work(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(exporting, "Graph", lambda *_: pytest.fail("the work began"))
    with pytest.raises(ForeignFileError):
        export(classifier, tmp_path / "mine")


def test_an_export_is_known_by_all_of_its_files(classifier: Classifier, tmp_path: Path) -> None:
    folder = export(classifier, tmp_path / "out").folder
    assert is_untouched(folder)
    (tmp_path / "link").symlink_to(folder)
    assert not is_untouched(tmp_path / "link")
    (tmp_path / "elsewhere").mkdir()
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    assert not is_untouched(folder)
    (folder / "more").unlink()
    assert is_untouched(folder)
    (folder / CARD).rename(tmp_path / "card")
    assert not is_untouched(folder)
    (folder / CARD).symlink_to(tmp_path / "card")
    assert not is_untouched(folder)


@pytest.mark.parametrize(
    "card",
    [
        FACTS.put(b"{}"), FACTS.put(b"[]"), FACTS.put(b"{"), b"", b"\xff",
        b'{\n "format": 1, "seewhy": "1", "files": ' + b"[" * 100_000,
        json.dumps({"format": 1, "seewhy": "", "graph": "", "preprocessing": {}, "files": 3}).encode(),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_card_of_any_kind_is_read_without_an_error(card: bytes, tmp_path: Path) -> None:
    (tmp_path / CARD).write_bytes(card)
    assert not is_untouched(tmp_path)


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (InputError("As it was."), InputError, "^As it was"),
        (OSError("disk full"), DataError, "cannot be written: disk full. Free some space, or give another folder."),
        (RuntimeError("odd"), ModelError, r"This classifier cannot be exported to ONNX \(RuntimeError: odd\)"),
    ],
)
def test_what_stops_an_export_is_told_as_what_it_is(
    error: Exception, expected: Any, said: str, classifier: Classifier, tmp_path: Path, monkeypatch: Any
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(exporting, "write_graph", fail)
    with pytest.raises(expected, match=said):
        export(classifier, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "beside"), [(2**31 - 2**24, False), (2**31 - 2**24 + 1, True)])
def test_weights_lie_beside_a_graph_that_one_file_cannot_hold(
    size: int, beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def write(*_: Any, beside: bool, **how: Any) -> None:
        told.append(beside)
        raise OSError("enough")

    monkeypatch.setattr(exporting, "write_onnx", write)
    program: Any = SimpleNamespace(
        state_dict={"w": SimpleNamespace(nbytes=size - 10)}, constants={"c": SimpleNamespace(nbytes=10), "none": 3}
    )
    with pytest.raises(OSError, match="enough"):
        exporting.write_graph(program, tmp_path, {})
    assert told == [beside]
