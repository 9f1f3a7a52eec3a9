"""Evaluation: every figure of the report, by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from seewhy.attributions.base import Attribution
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.unfitted import Pretrained
from seewhy.descriptions import Descriptions
from seewhy.errors import DataError
from seewhy.evaluation import evaluate
from seewhy.evaluation.figures import faithfulness_figures, than_random
from seewhy.evaluation.report import address, write_cards
from seewhy.heads.head import Head
from seewhy.metrics.calibration import accuracy_interval
from seewhy.pictures.samples import Sample, Samples, load_samples
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore
from tiny import class_folders, tiny_cnn

ENCODER = tiny_cnn()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), 6)


@pytest.fixture(scope="module")
def model(folders: Path) -> Classifier:
    words = Descriptions({c: (f"{c} word", "other") for c in ("moss", "rust", "sky")})
    return Linear(n_crops=1).fit(ENCODER, load_samples(folders), descriptions=words)


@dataclass(frozen=True)
class Alike(Attribution):
    """Equally hot everywhere."""

    name: ClassVar[str] = "alike"
    paper: ClassVar[str] = ""
    needs: ClassVar[str] = "nothing"
    cost: ClassVar[str] = "0"

    def attribute(self, model: Any, look: Any, target: Any) -> torch.Tensor:
        return torch.ones(len(look), 4, 4)


def mislabelled(folders: Path) -> Samples:
    """Two pictures of moss are said to be sky, one of rust to be moss."""
    wrong = {"moss_0.png": "sky", "moss_1.png": "sky", "rust_0.png": "moss"}
    items = tuple(Sample(s.image, wrong.get(Path(s.image).name, s.label)) for s in load_samples(folders).items)
    return Samples(items, ("moss", "rust", "sky"))


def test_every_figure_by_hand(model: Classifier, folders: Path) -> None:
    data = evaluate(model, mislabelled(folders), n_explained=4).data
    assert data["n"] == 18
    assert data["accuracy"] == round(15 / 18, 4)
    low, high = data["accuracy_interval"]
    assert low < data["accuracy"] < high
    assert data["per_class"] == [
        {"label": "moss", "n": 5, "precision": round(4 / 6, 4), "recall": 0.8, "f1": round(8 / 11, 4)},
        {"label": "rust", "n": 5, "precision": round(5 / 6, 4), "recall": 1.0, "f1": round(10 / 11, 4)},
        {"label": "sky", "n": 8, "precision": 1.0, "recall": 0.75, "f1": round(6 / 7, 4)},
    ]
    named = {(c["true"], c["predicted"]): (c["n"], [Path(e).name for e in c["examples"]]) for c in data["confusions"]}
    assert named == {("sky", "moss"): (2, ["moss_0.png", "moss_1.png"]), ("moss", "rust"): (1, ["rust_0.png"])}
    assert data["confusion_matrix"] == {
        "labels": ["moss", "rust", "sky"],
        "counts": [[4, 1, 0], [0, 5, 0], [2, 0, 6]],
    }
    assert sum(b["n"] for b in data["reliability"]) == 18
    by_hand = sum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in data["reliability"]) / 18
    assert data["calibration_error"] == pytest.approx(by_hand, abs=2e-4)
    assert data["model"] == model.provenance()
    assert data["failures"] == []


def test_maps_that_are_zero_are_counted(model: Classifier, folders: Path) -> None:
    """Of a class that nothing on a picture speaks for there is no map: no figure, and not to be relied on."""
    head = Head(model.head.feature, torch.zeros_like(model.head.weight), model.head.bias)
    empty = replace(model, head=head)
    where = evaluate(empty, load_samples(folders), n_explained=4).data["faithfulness"]
    assert (where["n"], where["n_zero"], where["deletion"]) == (4, 4, None)
    assert where["than_random"] == {
        "lead": 0.0,
        "interval": [0.0, 0.0],
        "verdict": "not shown",
        "sentence": "The heat maps are not shown to be better than random ones. Compared with random maps, insertion "
        "minus "
        "deletion differs by +0.00 "
        "(+0.00 to +0.00) on 4 pictures. At least 10 pictures are needed.",
    }
    assert where["verdicts"] == {"believable": 0, "partly": 0, "do not rely": 4, "not measured": 0}


def test_explanations_are_measured(model: Classifier, folders: Path) -> None:
    data = evaluate(model, folders, n_explained=4).data
    where = data["faithfulness"]
    assert where["n"] == sum(where["verdicts"].values()) <= 4
    assert all(-1 <= where[k] <= 1 for k in ("match", "match_centre"))
    assert all(0 <= where[k] <= 1 for k in ("deletion", "deletion_random", "insertion", "insertion_random"))
    assert data["like"]["chance"] == pytest.approx(1 / 3, abs=0.2)
    assert set(data["words"]) == {"accuracy", "name_only", "random_words", "n"}
    assert data["words"]["n"] == 18
    assert data == evaluate(model, folders, n_explained=4).data


@pytest.mark.parametrize(
    ("leads", "verdict"),
    [
        ([0.1] * 10, "better"),
        ([0.1] * 9, "not shown"),
        ([-0.1] * 10, "worse"),
        ([0.3, -0.3] * 10, "not shown"),
        ([0.3, -0.3] * 10 + [0.4] * 20, "better"),
        ([0.0] * 40, "not shown"),
        ([0.5] * 2 + [0.0] * 18, "not shown"),
    ],
)
def test_better_than_random_is_said_where_the_interval_leaves_out_0(leads: list[float], verdict: str) -> None:
    found = than_random(torch.tensor(leads), 0)
    assert found["verdict"] == verdict
    low, high = found["interval"]
    assert low <= found["lead"] <= high
    said = {
        "better": "are better than",
        "worse": "are worse than",
        "not shown": "are not shown to be better than random",
    }
    assert said[verdict] in found["sentence"]


def test_a_map_is_compared_with_its_shuffled_copy_in_as_many_steps(model: Classifier, folders: Path) -> None:
    """A map without places, all cells alike, is its own shuffled copy and no better by a hair."""
    found = [e.where for e in model.explain_all(sorted(folders.rglob("*.png"))[:6], where=Alike())]
    for where in found:
        assert len(where.deletion_curve) == len(where.deletion_random_curve) == len(where.steps)
        assert where.deletion_curve == where.deletion_random_curve
        assert where.insertion_curve == where.insertion_random_curve
    figures = faithfulness_figures(list(model.explain_all(sorted(folders.rglob("*.png"))[:12], where=Alike())), 0)
    assert figures is not None
    assert figures["than_random"]["lead"] == 0.0


def test_nothing_explained_and_no_words(folders: Path) -> None:
    data = evaluate(Pretrained().build(ENCODER), folders, n_explained=0).data
    assert data["faithfulness"] is None
    assert data["like"] is None
    assert data["words"] is None


def test_the_store_changes_nothing(model: Classifier, folders: Path, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store.sqlite")
    plain = evaluate(model, folders, n_explained=0).data
    assert evaluate(model, folders, n_explained=0, store=store).data == plain
    assert evaluate(model, folders, n_explained=0, store=store).data == plain


def test_unknown_labels_and_broken_pictures_are_said(model: Classifier, folders: Path, tmp_path: Path) -> None:
    items = load_samples(folders).items[:6]
    broken = Sample(str(tmp_path / "nowhere.png"), "moss")
    samples = Samples((*items, broken, Sample(items[0].image, "fog")), ("fog", "moss"))
    data = evaluate(model, samples, n_explained=0).data
    assert data["n"] == 6
    assert data["notes"][0] == "left out 1 picture(s) of 1 unknown class(es): 'fog'"
    assert data["notes"][1].startswith("The classifier was fitted on 6 of these pictures (6 as the same file)")
    assert data["failures"] == [{"image": broken.image, "error": "does not exist; check the spelling and the folder"}]


def test_data_of_other_classes_is_refused(model: Classifier, folders: Path) -> None:
    items = load_samples(folders).items
    with pytest.raises(DataError) as caught:
        evaluate(model, Samples((Sample(items[0].image, "fog"),), ("fog",)))
    assert str(caught.value) == (
        "None of the 1 labels ('fog') is one of the 3 classes ('moss', 'rust', 'sky'). Use "
        "the same class names in both."
    )
    with pytest.raises(DataError) as unreadable:
        evaluate(model, Samples((Sample("nowhere.png", "moss"),), ("moss",)))
    assert str(unreadable.value) == (
        "None of the 1 pictures can be read. The first error: does not exist; check the spelling and the folder."
    )


def test_nothing_is_explained_unless_asked(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    stream = Classifier.explain_all
    monkeypatch.setattr(Classifier, "explain_all", lambda *a, **k: asked.append(len(a[1])) or stream(*a, **k))
    model = Pretrained().build(ENCODER)
    plain = evaluate(model, folders).data
    assert (plain["faithfulness"], plain["like"], sum(asked)) == (None, None, 0)
    assert evaluate(model, folders, faithfulness=True).data["faithfulness"]["n"] == sum(asked) > 0


def test_reports_are_written(model: Classifier, folders: Path, tmp_path: Path) -> None:
    report = evaluate(model, folders, n_explained=1)
    path = report.save(tmp_path / "report.json")
    assert json.loads(path.read_text("utf-8")) == json.loads(json.dumps(report.to_json()))
    assert report.save(tmp_path / "report.html").read_text("utf-8").rstrip() == report.to_html().rstrip()
    with pytest.raises(DataError) as caught:
        report.save(tmp_path / "report.pdf")
    assert str(caught.value) == f"A report file must end in .html or .json, got {tmp_path / 'report.pdf'}."
    assert report.accuracy == 1


def test_a_perfect_and_a_constant_classifier(model: Classifier, folders: Path) -> None:
    assert evaluate(model, folders, n_explained=0).accuracy == 1
    constant = Pretrained().build(ENCODER)
    constant.head.weight.zero_()
    constant.head.bias.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0]))
    data = evaluate(constant, folders, n_explained=0).data
    assert data["accuracy"] == round(1 / 3, 4)
    assert [r["recall"] for r in data["per_class"]] == [1.0, 0.0, 0.0]
    assert [r["f1"] for r in data["per_class"]] == [0.5, 0.0, 0.0]


def test_pictures_that_belong_together_widen_the_interval() -> None:
    right = torch.arange(200) < 100
    alone = accuracy_interval(right)
    assert accuracy_interval(right, torch.arange(200)) == pytest.approx(alone, abs=0.002)
    low, high = accuracy_interval(right, torch.arange(200) // 20)  # ten things, each right or wrong as a whole
    assert (low, high) == pytest.approx(accuracy_interval(torch.arange(10) < 5), abs=0.03)
    draws = [torch.randperm(200, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
    mixed = [accuracy_interval(right[draw], torch.arange(200) // 20) for draw in draws]  # as different as strangers
    assert sum(high - low for low, high in mixed) / len(mixed) < 1.2 * (alone[1] - alone[0])


def test_wrong_decisions_are_shown_small_and_lead_to_their_cards(
    model: Classifier, folders: Path, tmp_path: Path
) -> None:
    report = evaluate(model, mislabelled(folders), n_explained=0)
    page = report.to_html()
    assert page.count('<img src="data:image/jpeg') == 3
    assert "its card" not in page
    cards = write_cards(report, model, tmp_path / "why not", store=None, progress=Progress())
    assert sorted(Path(name).name for name in cards) == ["moss_0.png", "moss_1.png", "rust_0.png"]
    assert all(card.exists() for card in cards.values())
    links = {name: address(card, tmp_path / "reports" / "evaluation.html") for name, card in cards.items()}
    page = replace(report, cards=links).to_html()
    assert page.count('<a href="../why%20not/') == 3
    assert "Click a picture to open its card" in page
    written = {card: card.stat().st_mtime_ns for card in cards.values()}
    assert write_cards(report, model, tmp_path / "why not", store=None, progress=Progress()) == cards
    assert {card: card.stat().st_mtime_ns for card in written} == written, "kept, not made again"


def test_a_wrong_picture_that_is_gone_is_named(model: Classifier, folders: Path) -> None:
    report = evaluate(model, mislabelled(folders), n_explained=0)
    rows = [row | {"examples": [f"gone/{i}.png"]} for i, row in enumerate(report.data["confusions"])]
    page = replace(report, data=report.data | {"confusions": rows}).to_html()
    assert "gone/0.png" in page
    assert "data:image/jpeg" not in page


def test_without_wrong_decisions_there_are_no_cards(model: Classifier, folders: Path, tmp_path: Path) -> None:
    report = evaluate(model, load_samples(folders), n_explained=0)
    assert report.data["confusions"] == []
    assert write_cards(report, model, tmp_path / "why", store=None, progress=Progress()) == {}
    assert not (tmp_path / "why").exists()
