"""The façade as users of scikit-learn, torch and timm expect it: what it takes, what it lists, what it says."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

import seewhy
import tiny
from seewhy.arguments import _hints
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.unfitted import Described, ZeroShot
from seewhy.encoders.module import as_transform
from seewhy.errors import DataError, ImageError, InputError, SeeWhyError, UnknownNameError
from seewhy.evaluation import evaluate
from seewhy.evidence.explain import ExplainOptions
from seewhy.explanation.prediction import Prediction, Ranked
from seewhy.keywords import (
    AdaptKeywords,
    DescribedKeywords,
    EvaluateKeywords,
    ExplainKeywords,
    LinearKeywords,
    PretrainKeywords,
    ZeroShotKeywords,
)
from seewhy.learning.adapt import Adapt
from seewhy.learning.api import FROM_COLUMNS
from seewhy.learning.pretrain import Pretrain
from seewhy.pictures.sources import InMemory
from seewhy.types import Failure

LABELS = [label for label in tiny.CLASSES[:3] for _ in range(6)]
ARRAYS = [tiny.picture(label, i % 6) for i, label in enumerate(LABELS)]
fit = partial(seewhy.fit, n_crops=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.class_folders(tmp_path_factory.mktemp("api") / "photos", 6)


@pytest.fixture(scope="module")
def classifier(folders: Path) -> seewhy.Classifier:
    return fit(folders, encoder=tiny.tiny_cnn())


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        ).eval()


# What a picture may be given as.


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


FORMS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "text": lambda _, file: str(file),
    "path": lambda _, file: file,
    "bytes": lambda _, file: file.read_bytes(),
    "Pillow": lambda pixels, _: Image.fromarray(pixels),
    "uint8": lambda pixels, _: pixels,
    "float 0…1": lambda pixels, _: pixels / 255,
    "float 0…255": lambda pixels, _: pixels.astype(np.float32),
    "int64": lambda pixels, _: pixels.astype(np.int64),
    "uint8 tensor": lambda pixels, _: as_tensor(pixels),
    "int64 tensor": lambda pixels, _: as_tensor(pixels).long(),
    "float tensor": lambda pixels, _: as_tensor(pixels).float() / 255,
    "double tensor": lambda pixels, _: as_tensor(pixels).double() / 255,
    "with gradient": lambda pixels, _: (as_tensor(pixels).float() / 255).requires_grad_(),
    "in memory": lambda pixels, _: InMemory("moss", lambda: pixels),
    "of Hugging Face": lambda pixels, file: {"bytes": file.read_bytes(), "path": None},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_is_the_same_picture(form: str, classifier: seewhy.Classifier, tmp_path: Path) -> None:
    pixels, file = tiny.picture("moss", 3), tmp_path / "moss.png"
    Image.fromarray(pixels).save(file)
    given = FORMS[form](pixels, file)
    expected = classifier.predict_proba(pixels)
    assert expected.shape == (1, 3)
    np.testing.assert_array_equal(classifier.predict_proba(given), expected)
    one, many = classifier.predict(given), classifier.predict([given, given])
    assert isinstance(one, Prediction)
    assert [p.label for p in many if isinstance(p, Prediction)] == [one.label] * 2
    assert one.score == pytest.approx(expected.max())
    np.testing.assert_array_equal(classifier.explain(given, measure=False).view.shape, (32, 32, 3))


GREY = tiny.picture("sand", 1)[:, :, 0]


@pytest.mark.parametrize(
    "given", [GREY, GREY[:, :, None], torch.from_numpy(GREY), torch.from_numpy(GREY)[None], GREY / 255]
)
def test_grey_is_three_equal_channels(given: Any, classifier: seewhy.Classifier) -> None:
    whole = np.repeat(GREY[:, :, None], 3, 2)
    np.testing.assert_array_equal(classifier.predict_proba(given), classifier.predict_proba(whole))


BATCH = np.stack(ARRAYS[:4])


@pytest.mark.parametrize(
    "several",
    [
        BATCH,
        torch.from_numpy(BATCH).permute(0, 3, 1, 2),
        list(BATCH),
        tuple(BATCH),
        iter(BATCH),
        {"a": 1}.keys() and BATCH,
    ],
)
def test_several_pictures_give_a_list_in_their_order(several: Any, classifier: seewhy.Classifier) -> None:
    found = classifier.predict(several)
    assert [p.image for p in found] == ["picture 1", "picture 2", "picture 3", "picture 4"]
    assert [p.score for p in found] == pytest.approx(classifier.predict_proba(BATCH).max(1).tolist(), abs=1e-6)


def test_a_frame_or_a_data_set_gives_its_pictures(folders: Path, classifier: seewhy.Classifier) -> None:
    expected = classifier.predict_proba(files_of(folders))
    np.testing.assert_array_equal(classifier.predict_proba(Frame(files_of(folders))), expected)
    frame = Frame(files_of(folders))
    frame.columns = ("photo", "label")  # type: ignore[assignment]
    with pytest.raises(DataError, match=r"None of the columns 'photo', 'label' has the pictures\. Rename that column"):
        classifier.predict(frame)


@pytest.mark.parametrize(
    ("peer", "ours"),
    [("GradCAM", "grad_cam"), ("GradCAM++", "grad_cam_plus_plus"), ("IntegratedGradients", "integrated_gradients")],
)
def test_a_peers_name_of_a_method_gives_ours(peer: str, ours: str, classifier: seewhy.Classifier) -> None:
    with pytest.raises(UnknownNameError, match=rf"no attribution called '{re.escape(peer)}'\. Did you mean '{ours}'"):
        classifier.explain(ARRAYS[0], where=peer)


def test_names_in_an_array_are_files(folders: Path, classifier: seewhy.Classifier) -> None:
    names = sorted(map(str, folders.rglob("*.png")))
    assert [p.image for p in classifier.predict(np.array(names))] == names
    assert [p.image for p in classifier.predict(np.array(names, object))] == names


def test_a_broken_one_takes_its_place_and_stops_no_other(folders: Path, classifier: seewhy.Classifier) -> None:
    given = [ARRAYS[0], "nowhere.png", ARRAYS[1]]
    found = classifier.predict(given)
    assert [type(p) for p in found] == [Prediction, Failure, Prediction]
    explained = classifier.explain(given, measure=False)
    assert [isinstance(e, Failure) for e in explained] == [False, True, False]
    with pytest.raises(ImageError, match=r"nowhere\.png: does not exist"):
        classifier.predict_proba(given)
    with pytest.raises(ImageError, match=r"nowhere\.png: does not exist"):
        classifier.predict("nowhere.png")


def test_none_gives_none(classifier: seewhy.Classifier) -> None:
    assert classifier.predict([]) == []
    assert classifier.explain([]) == []
    assert classifier.predict_proba([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.randn(3, 8, 8), "undo its normalisation"),
        (torch.rand(3, 8, 8) * 255, "undo its normalisation, or divide values from 0 to 255 by 255"),
        (torch.rand(8, 8, 3), r"permute\(2, 0, 1\)"),
        (torch.rand(8), "has the shape"),
        (np.zeros((3, 8, 8)), "put channels last"),
        (np.zeros(()), "has the shape"),
        (None, "A picture must be a file name, bytes,"),
        (5, "A picture must be"),
        ({"a": 1}, "A picture must be"),
        (InMemory("odd", lambda: {}["x"]), r"odd: cannot be loaded \(KeyError: 'x'\)"),
    ],
)
def test_what_is_no_picture_is_told(wrong: Any, said: str, classifier: seewhy.Classifier) -> None:
    for ask in (classifier.predict, classifier.predict_proba, classifier.explain):
        with pytest.raises(InputError, match=said):
            ask(wrong)


# What pictures with classes may be given as.


class Pairs(Dataset):
    """As torchvision's are: pairs, whole numbers, names."""

    classes = tiny.CLASSES[:3]

    def __init__(self, listed: bool = False) -> None:
        self.read: list[int] = []
        if listed:
            self.targets = [self.classes.index(label) for label in LABELS]

    def __len__(self) -> int:
        return len(ARRAYS)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        self.read.append(i)
        return as_tensor(ARRAYS[i]), self.classes.index(LABELS[i])


class ClassLabel:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class FakeImage:
    """Hugging Face's feature of pictures."""


FakeImage.__name__ = "Image"


class Columns:
    """What of a Hugging Face dataset is used."""

    column_names = ("id", "photo", "kind")

    def __init__(self) -> None:
        self.features = {"id": object(), "photo": FakeImage(), "kind": ClassLabel(list(tiny.CLASSES[:3]))}

    def __len__(self) -> int:
        return len(ARRAYS)

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return [self._row(i)[key] for i in range(len(self))]
        return self._row(key)

    def _row(self, i: int) -> dict[str, Any]:
        return {"id": i, "photo": Image.fromarray(ARRAYS[i]), "kind": tiny.CLASSES.index(LABELS[i])}


class Frame:
    """What of a pandas data frame is used."""

    iloc = None
    columns = ("image", "label")

    def __init__(self, files: list[str]) -> None:
        self.cells = {"image": files, "label": LABELS}

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, column: str) -> list[str]:
        return self.cells[column]


def files_of(folders: Path) -> list[str]:
    return [str(folders / label / f"{label}_{i % 6}.png") for i, label in enumerate(LABELS)]


NUMBERS = [tiny.CLASSES.index(label) for label in LABELS]
HELD: dict[str, Callable[[Path], tuple[Any, ...]]] = {
    "folder": lambda folders: (folders,),
    "files, labels": lambda folders: (files_of(folders), LABELS),
    "array, labels": lambda _: (np.stack(ARRAYS), np.array(LABELS)),
    "tensor, labels": lambda _: (torch.from_numpy(np.stack(ARRAYS)).permute(0, 3, 1, 2), LABELS),
    "Pillow, labels": lambda _: ([Image.fromarray(a) for a in ARRAYS], tuple(LABELS)),
    "one tuple": lambda _: ((ARRAYS, LABELS),),
    "pairs": lambda _: (list(zip(ARRAYS, LABELS, strict=True)),),
    "by class": lambda _: (
        {label: [a for a, b in zip(ARRAYS, LABELS, strict=True) if b == label] for label in LABELS},
    ),
    "torch Dataset": lambda _: (Pairs(),),
    "torchvision's": lambda _: (Pairs(listed=True),),
    "Hugging Face": lambda _: (Columns(),),
    "data frame": lambda folders: (Frame(files_of(folders)),),
    "samples": lambda folders: (seewhy.load_samples(folders),),
}


@pytest.mark.parametrize("form", HELD)
def test_fit_and_evaluate_take_what_holds_pictures(form: str, folders: Path, classifier: seewhy.Classifier) -> None:
    fitted = fit(*HELD[form](folders), encoder=tiny.tiny_cnn(), held_out=0)
    assert fitted.classes == ("moss", "rust", "sky")
    wanted = fit(folders, encoder=tiny.tiny_cnn(), held_out=0).predict_proba(BATCH)
    np.testing.assert_allclose(fitted.predict_proba(BATCH), wanted, atol=2e-3)
    report = classifier.evaluate(*HELD[form](folders), n_explained=2)
    assert report.data["n"] == 18
    assert report.accuracy == classifier.evaluate(folders, n_explained=0).accuracy
    explained = fitted.explain(ARRAYS[0], measure=False)
    assert isinstance(explained.like, seewhy.explanation.similar.Like)
    assert fitted.known is not None


def test_validation_takes_the_same_forms(folders: Path) -> None:
    fitted = fit(ARRAYS[:9] + ARRAYS[9:15], LABELS[:15], tiny.tiny_cnn(), validation=(ARRAYS[15:], LABELS[15:]))
    assert "3 validation pictures" in fitted.trained_on


def test_groups_are_one_per_picture_where_there_is_no_table(folders: Path) -> None:
    groups = [i // 2 for i in range(18)]
    samples = seewhy.pictures.datasets.samples_of(ARRAYS, LABELS, group=groups)
    assert [s.group for s in samples.items] == [str(g) for g in groups]
    fitted = fit(ARRAYS, LABELS, tiny.tiny_cnn(), group=np.array(groups))
    assert fitted.held_out is not None
    assert len(set(fitted.held_out.groups.tolist())) == 9
    with pytest.raises(InputError, match="18 pictures and 2 groups"):
        fit(ARRAYS, LABELS, tiny.tiny_cnn(), group=[1, 2])
    with pytest.raises(InputError, match=r"Give that list, or use seewhy\.load_samples\(…, group="):
        fit(ARRAYS, LABELS, tiny.tiny_cnn(), group="visit")


def test_descriptions_are_given_in_one_form_as_in_another(classifier: seewhy.Classifier) -> None:
    words = {"moss": ["a"], "rust": ["b"], "sky": ["c"]}
    for given in (words, seewhy.Descriptions.of(words)):
        found = classifier.with_descriptions(given).words
        assert found is not None
        assert found.texts == ("a", "b", "c")


def test_an_encoder_in_second_place_is_the_encoder(folders: Path) -> None:
    """As it was before there were labels."""
    assert fit(folders, tiny.tiny_cnn()).encoder.name == "tiny"
    with pytest.raises(UnknownNameError, match="no encoder called 'lite7'"):
        fit(folders, "lite7")


def test_a_subset_keeps_its_own_and_pictures_are_read_when_they_are_looked_at() -> None:
    whole = Pairs(listed=True)
    samples = seewhy.pictures.datasets.samples_of(Subset(whole, [0, 7, 17]))
    assert [s.label for s in samples.items] == ["moss", "rust", "sky"]
    assert whole.read == []
    assert seewhy.pictures.datasets.samples_of(
        TensorDataset(torch.zeros(2, 3, 4, 4), torch.tensor([3, 12]))
    ).classes == (
        "3",
        "12",
    )


class OnOneFile(Pairs):
    """Reads as a data set on an open file does: two at once are mixed up."""

    busy = False

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        assert not self.busy
        self.busy = True
        time.sleep(0.002)
        self.busy = False
        return super().__getitem__(i)


def test_a_data_set_is_read_one_picture_at_a_time() -> None:
    data = OnOneFile(listed=True)
    assert fit(data, encoder=tiny.tiny_cnn()).classes == tiny.CLASSES[:3]
    assert sorted(set(data.read)) == list(range(18))


def test_bars_are_drawn_on_a_terminal_and_as_a_line_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(seewhy.Bars().track(iter("abc"), "Looking", 3)) == ["a", "b", "c"]
    shown: list[str] = []
    now = [0.0]

    class Handle:
        def update(self, data: dict[str, str], *, raw: bool) -> None:
            assert raw
            shown.append(data["text/plain"])

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert display_id
        Handle().update(data, raw=raw)
        return Handle()

    page = ModuleType("IPython.display")
    page.display = display  # type: ignore[attr-defined]
    notebook = ModuleType("IPython")
    notebook.get_ipython = lambda: SimpleNamespace(execution_count=7)  # type: ignore[attr-defined]
    for module in (ModuleType("ipykernel"), notebook, page):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("seewhy.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    bars = seewhy.Bars()
    for item in bars.track(iter("abc"), "Looking", 3):
        now[0] += 4
        if item == "c":
            bars.measured(3, {"loss": 1.25})
    assert shown[0] == ""
    assert [text[2:] for text in shown[-3:]] == [
        f"Looking {'━' * 16}{'┄' * 8} 2 of 3, about 4 seconds left",
        f"Looking {'━' * 24} 3 of 3, loss 1.25, nearly done",
        "",
    ]
    for _ in bars.track(iter("ab"), "Reading"):
        now[0] += 1
    assert [text[2:] for text in shown[-2:]] == ["Reading: 2, 2 seconds so far", ""]
    assert shown.count("") == 3, "one place for all steps of a cell"


def test_numbers_are_classes_by_their_value() -> None:
    fitted = fit(ARRAYS, np.array(NUMBERS) * 5.0, tiny.tiny_cnn())
    assert fitted.classes == ("0", "5", "10")
    with pytest.raises(DataError, match="is ambiguous: it could be an index or the class named '5'"):
        fitted.predict(ARRAYS[0]) and fitted.explain(ARRAYS[0], target=5)


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((5,), "Labelled pictures cannot be read from an int"),
        ((None,), "Labelled pictures cannot be read from None"),
        ((ARRAYS,), r"Or give the labels separately: fit\(pictures, labels\)"),
        ((np.stack(ARRAYS),), r"Give the labels too: fit\(pictures, labels\)"),
        ((ARRAYS, LABELS[:3]), "The numbers of pictures and labels must be equal, got 18 pictures and 3 labels."),
        ((ARRAYS, 5), r"Write fit\(pictures, labels\), or give only a folder\."),
        ((5, LABELS), r"Write fit\(pictures, labels\), or give only a folder\."),
        (("photos", ["a", "b"]), r"Write fit\(pictures, labels\), or give only a folder\."),
        ((ARRAYS, [*LABELS[:-1], None]), "The label of picture 18 must be the name or index of a class, got None"),
        (
            (ARRAYS, [*LABELS[:-1], float("nan")]),
            "The label of picture 18 must be the name or index of a class, got nan",
        ),
        ((ARRAYS, [*LABELS[:-1], ""]), "The label of picture 18 must be the name or index of a class, got ''"),
        ((ARRAYS, [0.5] * 18), "The label of picture 1 must be the name or index of a class, got 0.5"),
        ((ARRAYS, np.eye(18)), "The label of picture 1 must be the name or index of a class, got \\[1.0"),
        (([],), "The data has no pictures"),
        (({},), "The data has no pictures"),
        (([(1, 2, 3), 5],), r"Item 1 of the data must be a pair \(picture, label\), got an int"),
        (({"train": Columns(), "test": Columns()},), "the splits 'train', 'test'"),
        ((torch.utils.data.DataLoader(Pairs()),), "loader.dataset"),
        ((Endless(),), "cannot be read from an Endless"),
        ((Frame.__new__(Frame),), "'image'|cells"),
    ],
)  # fmt: skip
def test_what_holds_no_classes_is_told(given: tuple[Any, ...], said: str) -> None:
    if isinstance(given[0], Frame):
        given[0].columns = ("photo", "kind")  # type: ignore[assignment]
        said = "None of the columns 'photo', 'kind' has the pictures"
    with pytest.raises(InputError, match=said):
        fit(*given, encoder=tiny.tiny_cnn())


# Names, lists, parts.


def test_parts_are_attributes_and_listed() -> None:
    code = (
        "import sys, seewhy; assert 'torch' not in sys.modules; "
        "names = dir(seewhy); assert {'attributions', 'metrics', 'compat', 'explain', '__version__'} <= set(names); "
        "assert seewhy.metrics.metrics and seewhy.compat.GradCAM and seewhy.attributions.attributions; "
        "print(seewhy.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == seewhy.__version__
    with pytest.raises(AttributeError, match=r"no attribute 'classifer'\. Did you mean 'classifiers'"):
        _ = seewhy.classifer
    for name in seewhy.__all__:
        assert getattr(seewhy, name).__doc__


def test_lists() -> None:
    assert seewhy.list_encoders("lite*") == ["lite0", "lite1", "lite2"]
    assert "timm:resnet18.a1_in1k" in seewhy.list_encoders("timm:resnet18*")
    assert seewhy.list_encoders("torchvision:resnet18") == ["torchvision:resnet18"]
    assert "grad_cam" in seewhy.list_methods("where")
    assert seewhy.list_methods("where") == seewhy.list_methods("attribution")
    assert set(seewhy.list_methods("metric")) < set(seewhy.list_methods())
    with pytest.raises(UnknownNameError, match="Did you mean 'where'"):
        seewhy.list_methods("wher")


@pytest.mark.parametrize(
    ("keywords", "of"),
    [
        (ExplainKeywords, ExplainOptions),
        (AdaptKeywords, Adapt),
        (LinearKeywords, Linear),
        (ZeroShotKeywords, ZeroShot),
        (DescribedKeywords, Described),
    ],
)
def test_typed_options_are_the_fields(keywords: Any, of: Any) -> None:
    assert list(keywords.__annotations__) == [f.name for f in fields(of)] or set(keywords.__annotations__) == {
        f.name for f in fields(of)
    }


def test_what_pretrain_passes_on_is_what_its_ways_take() -> None:
    taken = {name for way in (Adapt, Pretrain, *FROM_COLUMNS) for name in way.takes()} | {"objective"}
    assert set(get_type_hints(PretrainKeywords)) == taken


@pytest.mark.parametrize(
    ("function", "option"),
    [
        (seewhy.fit, "solver"),
        (seewhy.explain, "where"),
        (seewhy.Classifier.explain, "n_regions"),
        (seewhy.zero_shot, "scale"),
    ],
)
def test_a_prompt_completes_the_options(function: Any, option: str) -> None:
    assert option in inspect.signature(function).parameters
    assert f"{option}: " in str(inspect.signature(function))


CHECKED = """
import seewhy
classifier = seewhy.pretrained()
reveal_type(classifier.explain("x", where="rise"))
reveal_type(classifier.predict(["x"]))
reveal_type(seewhy.fit("x", solver="svm"))
classifier.explain("x", method="rise")
seewhy.fit("x", solver="tree")
"""


@pytest.mark.slow
def test_an_editor_knows_the_types(tmp_path: Path) -> None:
    file = tmp_path / "checked.py"
    file.write_text(CHECKED)
    command = [sys.executable, "-m", "mypy", str(file)]  # it knows what make check found
    said = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    types = re.findall(r'Revealed type is "(.*?)"', said)
    assert types == [
        "seewhy.explanation.base.Explanation",
        "list[seewhy.explanation.prediction.Prediction | seewhy.types.Failure]",
        "seewhy.classifiers.base.Classifier",
    ]
    assert 'Unexpected keyword argument "method"' in said
    assert "expected \"Literal['logistic', 'svm']\"" in said


def test_typed_options_of_evaluate_are_its_parameters() -> None:
    own = set(inspect.signature(evaluate).parameters) - {"classifier", "samples"}
    assert set(EvaluateKeywords.__annotations__) == own


# Networks and preprocessing of others.


def test_explain_and_study_take_what_is_in_memory(classifier: seewhy.Classifier, tmp_path: Path) -> None:
    why = seewhy.explain(ARRAYS[0], classifier, measure=False, target=1)
    assert why.where.target == "rust"
    found = seewhy.study(
        network(), ARRAYS[:3], transform=tiny.TRANSFORM, methods=["grad_cam"], metrics="sparsity", output=tmp_path
    )
    assert {row["method"] for row in found.data["metrics"][0]["rows"]} >= {"grad_cam", "random"}
    assert (tmp_path / "progress.jsonl").is_file()
    assert seewhy.study(classifier, ARRAYS[:3], methods="grad_cam", metrics="sparsity", n=2).data["n"] == 2


def test_transforms_of_others_are_taken() -> None:
    import timm
    from torchvision import transforms
    from torchvision.models import ResNet18_Weights, ViT_B_16_Weights

    known = seewhy.Transform((224, 224), 256, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    weights = ResNet18_Weights.DEFAULT
    for given in (known, weights, weights.transforms, weights.transforms()):
        assert as_transform(given) == known
    assert as_transform(ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1.transforms()).input_size == (384, 384)
    config = timm.data.resolve_data_config({}, model=timm.create_model("resnet18"))
    assert as_transform(config) == as_transform(timm.data.create_transform(**config))
    assert as_transform(config).resize == 235
    squash = {**config, "crop_mode": "squash", "crop_pct": 1.0}
    assert as_transform(squash).resize == as_transform(timm.data.create_transform(**squash)).resize == (224, 224)
    steps = [transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]
    assert as_transform(transforms.Compose(steps)) == tiny.TRANSFORM
    encoder = seewhy.from_module(network(), transform=transforms.Compose(steps))
    assert encoder.fingerprint == seewhy.from_module(network(), transform=tiny.TRANSFORM).fingerprint


def test_a_transform_that_cannot_be_expressed_is_refused() -> None:
    import timm
    from torchvision import transforms

    training = timm.data.create_transform((3, 224, 224), is_training=True)
    for wrong, said in (
        (training, "evaluation, not for training"),
        (transforms.Compose([transforms.Resize(32), transforms.ToTensor()]), "without a crop"),
        (
            transforms.Compose([transforms.CenterCrop(32), transforms.Resize(32)]),
            "Resize, CenterCrop and Normalize in this order",
        ),
        (transforms.ToTensor(), "The transform must be .*, got a ToTensor"),
        (None, "The transform must be .*, got None"),
    ):
        with pytest.raises(InputError, match=said):
            seewhy.from_module(network(), transform=wrong)


# What is shown.


def test_what_is_shown_at_a_prompt_fits_three_lines(classifier: seewhy.Classifier, folders: Path) -> None:
    long = Prediction("x" * 500, tuple(Ranked("y" * 300, 0.1) for _ in range(50)))
    shown = [
        classifier, long, classifier.predict(ARRAYS[0]), classifier.explain(ARRAYS[0]), seewhy.load_samples(folders),
        classifier.evaluate(folders, n_explained=2), classifier.encoder, Failure("x", "y"),
        seewhy.study(classifier, ARRAYS[:2], methods="grad_cam", metrics="sparsity"),
    ]  # fmt: skip
    for one in shown:
        lines = repr(one).splitlines()
        assert len(lines) <= 3
        assert sum(len(line) // 160 + 1 for line in lines) <= 3, repr(one)


# What is wrong is told in a sentence, whatever it is.


class Odd:
    """Nothing that anybody expects."""


WRONG: list[Any] = [
    Odd(), 5, -1, 77, 2.5, float("nan"), "no such thing", "", b"xx", None, True, [], [5], ["a"], {}, {"a": 1},
    np.zeros(3), np.zeros((3, 3)), torch.zeros(2), print, object, Path("/nowhere"), (1, 2), {1, 2},
]  # fmt: skip


@pytest.fixture(scope="module")
def calls(classifier: seewhy.Classifier, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every public function, and arguments it takes."""
    encoder, place = classifier.encoder, tmp_path_factory.mktemp("calls")
    words = {"moss": ["a"], "rust": ["b"], "sky": ["c"]}
    why = classifier.explain(ARRAYS[0], measure=False)
    return {
        "pretrained": (seewhy.pretrained, {"encoder": encoder}),
        "zero_shot": (seewhy.zero_shot, {"labels": ["a", "b"], "encoder": encoder}),
        "described": (seewhy.described, {"descriptions": words, "encoder": encoder}),
        "fit": (seewhy.fit, {"pictures": folders, "encoder": encoder, "n_crops": 0}),
        "explain": (seewhy.explain, {"picture": ARRAYS[0], "classifier": classifier, "measure": False}),
        "study": (
            seewhy.study,
            {
                "model": classifier,
                "pictures": ARRAYS[:2],
                "methods": "grad_cam",
                "metrics": "sparsity",
                "output": place,
            },
        ),
        "from_module": (seewhy.from_module, {"module": network(), "transform": tiny.TRANSFORM}),
        "load": (seewhy.load, {"folder": "nowhere"}),
        "load_samples": (seewhy.load_samples, {"source": folders}),
        "encoder": (seewhy.encoder, {"name": "lite7"}),
        "list_encoders": (seewhy.list_encoders, {"pattern": "lite*"}),
        "list_methods": (seewhy.list_methods, {}),
        "schema": (seewhy.schema, {"name": "explain"}),
        "FeatureStore": (seewhy.FeatureStore, {"path": place / "store.sqlite"}),
        "Transform": (
            seewhy.Transform,
            {"input_size": (8, 8), "resize": 8, "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3},
        ),
        "Descriptions.of": (seewhy.Descriptions.of, {"pairs": words}),
        "Descriptions.read": (seewhy.Descriptions.read, {"path": "nowhere"}),
        "predict": (classifier.predict, {"picture": ARRAYS[0]}),
        "predict_proba": (classifier.predict_proba, {"pictures": ARRAYS[:1]}),
        "predict_all": (classifier.predict_all, {"pictures": ARRAYS[:1]}),
        "Classifier.explain": (classifier.explain, {"picture": ARRAYS[0], "measure": False}),
        "explain_all": (classifier.explain_all, {"pictures": ARRAYS[:1], "measure": False}),
        "evaluate": (classifier.evaluate, {"samples": folders, "n_explained": 0}),
        "with_descriptions": (classifier.with_descriptions, {"descriptions": seewhy.Descriptions.of(words)}),
        "save": (classifier.save, {"folder": place / "model"}),
        "index_of": (classifier.index_of, {"label": "moss"}),
        "Explanation.save": (why.save, {"path": place / "card.json"}),
        "Report.save": (classifier.evaluate(folders, n_explained=0).save, {"path": place / "report.json"}),
    }


NAMES = (
    "pretrained", "zero_shot", "described", "fit", "explain", "study", "from_module", "load", "load_samples", "encoder",
    "list_encoders", "list_methods", "FeatureStore", "Transform", "Descriptions.of", "Descriptions.read", "predict",
    "predict_proba", "predict_all", "Classifier.explain", "explain_all", "evaluate", "with_descriptions", "save",
    "index_of", "Explanation.save", "Report.save", "schema",
)  # fmt: skip


def parameters_of(function: Any) -> list[str]:
    """Its own and those it passes on."""
    if not hasattr(inspect.unwrap(function), "__wrapped__") and function is inspect.unwrap(function):
        return [p for p in inspect.signature(function).parameters if p != "source"]
    return [*_hints(getattr(function, "__func__", function))]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_whatever_is_given_is_taken_or_told(name: str, calls: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    """Of every argument of every public function, whatever it is: no error of Python's own."""
    monkeypatch.chdir(tmp_path)
    function, good = calls[name]
    assert name in NAMES
    assert set(calls) == set(NAMES)
    for parameter in parameters_of(
        function.__init__ if inspect.isclass(function) and name == "FeatureStore" else function
    ):
        for wrong in WRONG:
            if (parameter == "views" and wrong is object) or (parameter == "classifier" and wrong is None):
                continue  # a function that fails is the user's own; and the default takes seconds to load
            try:
                found = function(**{**good, parameter: wrong})
                if isinstance(found, Iterator):
                    list(found)
            except SeeWhyError:
                pass
            except Exception as error:
                raise AssertionError(f"{name}({parameter}={wrong!r}) raised {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("Transform", "Descriptions.of", "encoder")])
def test_an_unknown_keyword_is_told_and_none_at_all(name: str, calls: dict[str, Any]) -> None:
    function, good = calls[name]
    with pytest.raises(InputError, match=r"\(\) has no argument no_such_option=1\. It takes"):
        function(**good, no_such_option=1)
    if good and name != "FeatureStore":
        own = inspect.signature(function).parameters
        required = [p for p in good if p in own and own[p].default is inspect.Parameter.empty]
        if required:
            with pytest.raises(InputError, match="cannot be called like this: missing a required"):
                function()


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_an_option_that_a_loader_does_not_take_is_told(name: str) -> None:
    with pytest.raises(InputError, match=r"does not accept the options sise: .*'sise'"):
        seewhy.encoder(name, sise=3)


@pytest.mark.parametrize(
    ("name", "keywords", "said"),
    [
        (
            "Classifier.explain", {"target": 5},
            "A class index must be from 0 ('moss') to 2 ('sky'), got 5.",
        ),
        (
            "Classifier.explain", {"target": 1.0},
            "`target` of explain() must be a string, a whole number or None, got 1.0 (a float).",
        ),
        (
            "Classifier.explain", {"n_regions": -1},
            "`n_regions` of explain() must be a whole number of at least 0, got -1 (an int).",
        ),
        (
            "fit", {"solver": "tree"},
            "`solver` of fit() must be 'logistic' or 'svm', got 'tree' (a str).",
        ),
        (
            "fit", {"n_crop": 3},
            "fit() has no argument n_crop=3. Did you mean n_crops? Write n_crops=3.",
        ),
        (
            "pretrained", {"encoder": nn.Linear(1, 1)},
            "`encoder` of pretrained() must be an Encoder or a string, got a Linear. Make an encoder of "
            "the network with seewhy.from_module(module, transform=...).",
        ),
        (
            "zero_shot", {"labels": "cat, dog"},
            "`labels` of zero_shot() must be a list of strings, got 'cat, dog' (a str).",
        ),
        ("save", {"folder": 5}, "`folder` of save() must be a name or path, got 5 (an int)."),
    ],
)  # fmt: skip
def test_messages(name: str, keywords: dict[str, Any], said: str, calls: dict[str, Any]) -> None:
    function, good = calls[name]
    with pytest.raises(InputError) as caught:
        function(**{**good, **keywords})
    assert str(caught.value) == said
