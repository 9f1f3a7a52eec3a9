"""How far to trust a decision: fitted, saved, without pictures, on the card, the index and the report."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.certainty import FIT, _measured, _worded, check_level, listed
from seewhy.classifiers.neighbours import Neighbours
from seewhy.classifiers.unfitted import ZeroShot
from seewhy.classifiers.words import measured_on
from seewhy.cli.predict import _csv_lines, _decision_line, _text_lines
from seewhy.errors import InputError
from seewhy.explanation.prediction import Decision, Prediction, Ranked
from seewhy.pictures.samples import Samples, load_samples
from seewhy.report import index_entry, render_index
from seewhy.trust.base import Judgement
from tiny import CLASSES, class_folders, colours, picture


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return load_samples(class_folders(tmp_path_factory.mktemp("colours"), 24, CLASSES[:4]))


@pytest.fixture(scope="module")
def model(samples: Samples) -> Classifier:
    return seewhy.fit(samples, colours(), n_crops=0)


def odd() -> np.ndarray:
    """A picture of no class: black and white squares."""
    return np.kron(np.indices((10, 10)).sum(0) % 2, np.ones((4, 4))).astype(np.uint8)[..., None].repeat(3, 2) * 255


def test_a_picture_of_a_class_is_sure(model: Classifier) -> None:
    decision = model.predict(picture(CLASSES[0], 99)).decision
    assert decision is not None
    assert decision.verdict == "sure"
    assert decision.classes == (CLASSES[0],)
    assert decision.n == 96
    assert decision.probability > 0.9
    assert decision.interval[0] <= decision.probability <= decision.interval[1]
    assert decision.sentence.endswith(" of the time, measured on 96 held-out pictures.")
    assert f"Of {decision.n_sure} held-out pictures called sure" in decision.figures
    assert decision.cure == ""


def test_what_is_not_sure_says_why() -> None:
    def said(probability: float | None, names: tuple[str, ...] = ("moss", "rust"), among: int = 1) -> Decision:
        decision = Decision("not sure", "", names[:among], 0.9, probability, if_known=0.97, fit=0.3, n=48)
        return _worded(replace(decision, if_known=probability or 0.97), names, (0.5, 1.0))

    def plain(text: str) -> str:
        return text.replace("\u202f", " ")

    often = "In cases like this, the prediction is right 80 % of the time"
    assert plain(said(0.8).sentence) == f"{often}; the next most probable class is rust."
    assert plain(said(0.8, ("moss",)).sentence) == f"{often}."
    unusual = "The picture is less typical of its class than most, so it may show a class that was never learnt."
    assert said(None).sentence == unusual
    assert plain(said(None).figures).startswith(
        "If the picture shows one of the classes, moss is right in 97 % of cases like this (50 % to 100 %)."
    )
    several = said(None, ("moss", "rust", "soot"), 2)
    assert plain(several.sentence) == f"{unusual} Otherwise it is moss or rust in 90 % of cases."
    assert "moss alone is right in 97" in plain(several.figures)


def test_no_percentage_stands_where_the_class_may_be_unknown(model: Classifier) -> None:
    """Of near strangers, 17 % read "Orange >99 %"; of far ones, 37 % had a probability of .90 in JSON and CSV."""
    trust = model.measured_trust
    assert trust is not None
    pictures = [odd(), *(np.roll(odd(), i, 1) // (2 + i) for i in range(9)), *(picture(c, 99) for c in CLASSES[:4])]
    seen = {"familiar": 0, "not": 0}
    for one in pictures:
        p = model.predict(one)
        d = p.decision
        assert d is not None
        data, (line,) = p.to_json()["decision"], _text_lines(iter([p]), "predictions")
        row = next(csv.DictReader(_csv_lines(iter([p]), "predictions")))
        numbers = (data["probability"], d.probability, p.probability, data["interval"], d.interval)
        if d.verdict == "sure":
            seen["familiar"] += 1
            assert all(n is not None for n in numbers)
            assert row["right"] == str(data["probability"])
            assert d.if_known == d.probability
        elif d.is_unknown or "may show a class" in d.sentence:
            seen["not"] += 1
            assert set(numbers) == {None}
            assert row["right"] == ""
            assert line.split("\t")[2] == "–"
            assert "%" not in d.sentence.partition(" Otherwise ")[0] or d.is_unknown
            assert data["if_known"] is not None
        assert p.is_measured
        assert d.doubt is not None
    assert min(seen.values()) > 0


def test_fewer_than_eight_pictures_say_how_many_more(tmp_path: Path) -> None:
    few = load_samples(class_folders(tmp_path / "few", 3, CLASSES[:2]))
    made = seewhy.fit(few, colours(), n_crops=0)
    p = made.predict(picture(CLASSES[0], 99))
    assert made.measured_trust is None
    assert p.decision is not None
    assert p.decision.missing.endswith("held out. Add at least 2 more pictures that show other objects.")
    assert _decision_line(p).split("\t")[-1] == "not measured\n"
    row = next(csv.DictReader(_csv_lines(iter([p]), "predictions")))
    assert (row["verdict"], row["right"]) == ("not measured", "")


def test_two_classes_of_eight_pictures_notice_what_is_no_picture_of_them(tmp_path: Path) -> None:
    made = seewhy.fit(load_samples(class_folders(tmp_path, 8, CLASSES[:2])), colours(), n_crops=0)
    for nothing in (np.zeros((64, 64, 3), np.uint8), odd()):
        decision = made.predict(nothing).decision
        assert decision is not None
        assert decision.verdict == "unlike anything it knows"
        assert decision.n == 16


def test_a_set_of_all_classes_is_not_sure_and_promises_nothing() -> None:
    """One of two classes is always right where there are two: "In 90 % of cases, one of these two is right"."""

    def worded(n_classes: int, probability: float = 0.6) -> Decision:
        figures = {"probability": probability, "interval": (0.3, 0.9), "fit": 0.3, "n": 48, "another_day": 0.7}
        made = Decision("not sure", "", ("moss", "rust"), 0.9, n_classes=n_classes, if_known=probability, **figures)
        return _worded(made, ("moss", "rust", "soot")[:n_classes], (0.3, 0.9))

    everything, some = worded(2), worded(3)
    assert (everything.word, some.word) == ("Not sure", "Not sure")
    assert everything.sentence.replace("\u202f", " ") == (
        "In cases like this, the prediction is right 60 % of the time; the next most probable class is rust."
    )
    assert everything.cure.startswith("Something else? ")
    assert "another day" not in everything.figures
    assert "another day" in some.figures
    assert some.sentence.endswith("of cases like this, the true class is moss or rust.")
    assert worded(2, 0.95).sentence.endswith(
        "; the next most probable class is rust."
    )  # "less typical" is the reason of one class
    lines = [_decision_line(Prediction("a.png", (Ranked("moss", 0.7),), decision=d)) for d in (everything, some)]
    assert [line.split("\t")[-1] for line in lines] == ["not sure\n", "not sure: moss or rust\n"]


def test_the_next_class_is_the_next_of_the_scores_beside_it() -> None:
    """Cards said: the next class is snow. Own score: beach 69 %, dog 17 %."""
    one, odds = torch.ones(1), torch.tensor([[0.5, 0.2, 0.3]])
    judged = Judgement(odds > 0.4, odds, 0.7 * one, 0.5 * one, 0.9 * one, 0.4 * one, one, one > 0, one < 0, one < 0)
    classifier: Any = SimpleNamespace(classes=("beach", "dog", "snow"))
    whole = Decision("not measured", "", (), 0.9, n=75, n_classes=3)
    scores = torch.tensor([0.69, 0.17, 0.14]).log()
    made = _measured(classifier, whole, judged, 0, scores)
    assert made.classes == ("beach",)
    assert made.sentence.endswith("; the next most probable class is dog.")
    named = _measured(classifier, whole, replace(judged, sets=odds > 0.25), 0, scores)
    assert named.classes == ("beach", "snow")  # by both classifiers, as the set was measured


@pytest.mark.parametrize(
    ("classes", "asked"),
    [(("a",), "Something else?"), (("a", "b"), "Neither?"), (("a", "b", "c"), "None of these?")],
)
def test_the_cure_asks_for_what_was_not_named(classes: tuple[str, ...], asked: str) -> None:
    decision = Decision("not sure", "", classes, 0.9, probability=0.8, interval=(0.5, 1.0), fit=0.3, n=48)
    assert (
        _worded(decision, ("a", "b", "c", "d"), (0.5, 1.0)).cure == f"{asked} Add pictures of it and fit again: {FIT}"
    )


def test_a_picture_of_nothing_is_unlike_anything_and_can_be_rejected(model: Classifier) -> None:
    prediction = model.predict(odd())
    decision = prediction.decision
    assert decision is not None
    assert decision.verdict == "unlike anything it knows"
    assert decision.fit < 0.05
    assert decision.sentence.endswith("as strange as this one, so do not trust any class.")
    assert "The most similar class is " in decision.figures
    assert "It reports an unknown class on" in decision.figures
    assert decision.cure.startswith("Something new? Add pictures")
    assert decision.doubt > 1 > model.predict(picture(CLASSES[0], 99)).decision.doubt
    rejected = replace(prediction, rejected=True)
    assert rejected.to_json()["label"] == "unknown"
    assert rejected.to_json()["top"][0]["label"] == prediction.label
    (line,) = _text_lines(iter([rejected]), "predictions")
    assert line.split("\t")[1::2] == ["unknown", "unlike anything it knows\n"]
    header, row = _csv_lines(iter([rejected]), "predictions")
    assert header == "image,label,score,error,verdict,right,set\n"
    assert row.split(",")[4] == "unlike anything it knows"


def test_saved_and_loaded_it_says_the_same(model: Classifier, tmp_path: Path) -> None:
    again = seewhy.load(model.save(tmp_path / "model"), encoder=colours())
    assert again.digest == model.digest
    assert again.trust is not None
    for one in (picture(CLASSES[1], 98), odd()):
        assert again.predict(one).decision == model.predict(one).decision


def test_damage_is_one_sentence(model: Classifier, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "model")
    card = json.loads((folder / "seewhy.json").read_text())
    for wrong in ({**card["trust"], "version": 9}, {}, [], {**card["trust"], "temperature": None}):
        (folder / "seewhy.json").write_text(json.dumps({**card, "trust": wrong}))
        with pytest.raises(seewhy.errors.ModelError, match=r"is damaged .* Fit the classifier again"):
            seewhy.load(folder, encoder=colours())


def test_an_earlier_archive_loads_and_says_what_is_missing(model: Classifier) -> None:
    assert model.held_out is not None
    early = replace(model, trust=None, held_out=replace(model.held_out, logits=None, groups=None))
    decision = early.predict(picture(CLASSES[0], 99)).decision
    assert decision is not None
    assert (decision.verdict, decision.probability, decision.doubt) == ("not measured", None, None)
    assert decision.sentence.startswith("SeeWhy cannot say how often a score of ")
    assert not decision.fits_poorly
    assert decision.missing.endswith("Fit it again.")
    late = replace(model, trust=None)  # what is needed is there: measured anew, to the same numbers
    assert late.predict(odd()).decision == model.predict(odd()).decision


def test_names_alone_get_what_can_be_had_until_there_are_pictures(samples: Samples) -> None:
    bare = ZeroShot().build(colours(), samples.classes)
    decision = bare.predict(picture(CLASSES[0], 99)).decision
    assert decision is not None
    assert decision.verdict == "not measured"
    assert "--validation PHOTOS" in decision.missing
    assert decision.to_json()["missing"] == decision.missing
    assert len(decision.classes) > 1
    assert decision.figures.startswith(f"{listed(decision.classes)}: their scores add up to 90 % or more.")
    measured = measured_on(bare, samples).predict(picture(CLASSES[0], 99)).decision
    assert measured is not None
    assert measured.n == 96
    assert measured.probability is not None


def test_a_class_that_no_measured_picture_is_of_is_not_measured(model: Classifier) -> None:
    held = model.held_out
    assert held is not None
    kept = held.labels != 0
    some = replace(held, pooled=held.pooled[kept], labels=held.labels[kept], logits=held.logits[kept], groups=None)
    fewer = replace(model, trust=None, held_out=some)
    assert fewer.predict(picture(CLASSES[1], 97)).decision.probability is not None
    decision = fewer.predict(picture(CLASSES[0], 97)).decision
    assert (decision.verdict, decision.label) == ("not measured", CLASSES[0])
    assert f"none of the 72 held-out pictures shows {CLASSES[0]}" in decision.missing


def test_a_vote_of_neighbours_is_measured_on_what_it_held_out(samples: Samples) -> None:
    many = Samples(samples.items * 1, samples.classes)
    made = Neighbours(held_out=0.5).fit(colours(), many)
    assert made.held_out is not None
    assert made.held_out.logits is not None
    assert made.predict(picture(CLASSES[0], 99)).decision.probability is not None


@pytest.mark.parametrize("level", [0.3, 1.0, -1.0, float("nan")])
def test_a_level_that_is_none(level: float) -> None:
    with pytest.raises(InputError, match=r"at least 0\.5 and less than 1, got"):
        check_level(level)


def test_a_higher_level_names_no_fewer_classes(model: Classifier) -> None:
    one = picture(CLASSES[0], 99)
    sets = [
        set(next(iter(model.predict_all([one], level=level))).decision.classes)
        for level in (0.5, 0.8, 0.9, 0.95, 0.999)
    ]
    assert all(a <= b for a, b in pairwise(sets))
    assert len(sets[-1]) == 4  # more than 96 pictures can promise


def test_names_in_a_sentence() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b or c"


def test_the_card_begins_with_the_decision(model: Classifier) -> None:
    for one, said in ((picture(CLASSES[0], 99), "<strong>Sure</strong>"), (odd(), ">Unlike anything it knows ")):
        why = model.explain(one, measure=False)
        page = why.to_html()
        assert page.index(said) < page.index("</h1>")
        assert page.index("</h1>") < page.index('class="trust"') < page.index('class="next"') < page.index('id="where"')
        assert why.to_json()["decision"]["verdict"] == why.prediction.decision.verdict
        assert len(why.to_png()) > 10_000
    heading = page[page.index("<h1") : page.index("</h1>")]
    assert "Unlike anything it knows" in heading
    assert "%" not in heading
    asked = model.explain(picture(CLASSES[0], 99), target=CLASSES[1], measure=False)
    assert asked.prediction.decision.classes[0] == asked.prediction.label == CLASSES[0]


def test_the_index_begins_with_what_is_most_doubtful(model: Classifier) -> None:
    sure, unknown = (index_entry(model.explain(p, measure=False), "x.html") for p in (picture(CLASSES[0], 99), odd()))
    doubtful = replace(sure, image="b", verdict="not sure", probability=0.6, trouble=0.4, score=0.99)
    unmeasured = replace(sure, image="c", verdict="not measured", is_measured=False, trouble=None)
    order = sorted([sure, unknown, doubtful, unmeasured], key=lambda entry: entry.doubt)
    assert order == [unknown, unmeasured, doubtful, sure]
    page = render_index([sure, unknown])
    assert page.index(unknown.sign[1]) < page.index("Sure</p>")
    assert ", 1 unlike anything the classifier knows" in page


def test_evaluate_says_whether_promises_are_kept(model: Classifier, samples: Samples, tmp_path: Path) -> None:
    from PIL import Image

    for i in range(4):
        Image.fromarray(np.roll(odd(), i, 0)).save(tmp_path / f"{i}.png")
    report = model.evaluate(samples, n_explained=0, unknown=tmp_path)
    found = report.data["trust"]
    assert found["by"] == "held-out pictures"
    assert found["coverage"] >= 0.9
    assert found["aurc_best"] <= found["aurc"] <= 1
    assert found["unknown"]["n"] == 4
    assert found["unknown"]["auroc"] == 1.0
    assert found["unknown"]["found"] == 1.0
    assert "When should you not trust it?" in report.to_html()
    own = ZeroShot().build(colours(), samples.classes).evaluate(samples, n_explained=0).data["trust"]
    assert (own["by"], own["sure_right"], own["unknown"]) == ("its own probability", None, None)
    assert own["aurc"] == own["aurc_probability"]


def test_a_prediction_without_features_says_nothing_of_trust(model: Classifier) -> None:
    made = Prediction("a.jpg", model.predict(odd()).top)
    assert made.decision is None
    assert "decision" not in made.to_json()


def test_pictures_of_which_none_could_be_held_out_are_not_denied(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("RGB", (40, 40), (120, 30, 200)).save(tmp_path / name / f"{i}.png")
    decision = seewhy.fit(load_samples(tmp_path), colours(), n_crops=0).predict(picture(CLASSES[0], 0)).decision
    assert decision is not None
    assert "no picture could be held out" in decision.sentence
    assert "of yours" not in decision.sentence
