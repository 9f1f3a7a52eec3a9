"""Several decisions about one picture: each is what a classifier of its own would say, from one look at the picture."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, precision_score, recall_score

import seewhy
from seewhy.classifiers.fit_answers import _check_enough, _gain
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.multi_output import MultiOutput, held_out, places
from seewhy.classifiers.saving import CARD
from seewhy.encoders.base import Encoder
from seewhy.errors import DataError, ForeignFileError, InputError, ModelError
from seewhy.evaluation.multi_output import evaluate_multi
from seewhy.explanation.prediction import MultiPrediction
from seewhy.metrics.labels import average_precision, interval_of
from seewhy.pictures.answers import Answers, load_answers
from seewhy.progress import Progress
from seewhy.types import Failure
from several_labels import paint, painted
from tiny import colours

LABELS = ("light", "warm", "rare")
EASY: dict[str, Any] = {"n_crops": 0}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted(tmp_path_factory.mktemp("seen") / "d", 150)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted(tmp_path_factory.mktemp("later") / "d", 90, seed=1)


@pytest.fixture(scope="module")
def model(table: Path) -> MultiOutput:
    return seewhy.fit_multi(table, encoder=colours(), settings=EASY)


@pytest.fixture(scope="module")
def questions(table: Path) -> MultiOutput:
    return seewhy.fit_multi(table, encoder=colours(), questions=["tone", "hue"], settings=EASY)


def truth(table: Path, name: str) -> torch.Tensor:
    return torch.tensor([answer == name for answer in load_answers(table).given[name]])


def predicted(model: MultiOutput, table: Path) -> list[MultiPrediction]:
    found = model.predict([s.image for s in load_answers(table).items])
    assert isinstance(found, list)
    made = [one for one in found if isinstance(one, MultiPrediction)]
    assert len(made) == len(found)
    return made


def subjects(found: dict[str, Any]) -> dict[str, str]:
    return {name: one.subject.label for name, one in found.items()}


def test_each_decision_is_that_of_a_classifier_of_its_own(model: MultiOutput, table: Path, later: Path) -> None:
    answers = load_answers(table)
    alone = Linear(**EASY, n_bank=100).fit(colours(), answers.of("warm"))
    pictures = [s.image for s in load_answers(later).items]
    expected = alone.predict_proba(pictures)[:, alone.classes.index("warm")].tolist()
    found = [one.labels["warm"].probability for one in predicted(model, later)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_rare_label_is_left_out_with_its_reason(model: MultiOutput) -> None:
    assert [*model.decisions] == ["light", "warm"]
    assert "got 3" in model.left_out["rare"]
    assert any(line.startswith("left out rare: ") and "got 3" in line for line in model.lines())
    assert model.to_json()["left_out"] == dict(model.left_out)


def test_an_unknown_answer_is_not_no(model: MultiOutput, questions: MultiOutput) -> None:
    assert model.decisions["light"].measures["n_pictures"] == 150 - 15
    assert questions.decisions["hue"].measures["n_pictures"] == 150 - 21
    assert questions.decisions["tone"].measures["n_pictures"] == 150
    assert set(questions.decisions["hue"].classes) == {"cold", "warm"}


def test_measures_are_those_of_scikit_learn_on_held_out_pictures(model: MultiOutput) -> None:
    each = []
    for name, measure in model.measures.items():
        p, true, _ = held_out(name, model.decisions[name])
        assert measure.n == len(p) == model.decisions[name].measures["n_held_out"]
        assert measure.n_with == int(true.sum()) > 0
        each.append(average_precision_score(true, p))
        assert measure.average_precision == pytest.approx(each[-1])
        assert measure.average_precision_interval is not None
        low, high = measure.average_precision_interval
        assert low <= each[-1] <= high <= 1
    assert model.mean_average_precision == pytest.approx(np.mean(each))
    assert f"mean average precision {np.mean(each):.3f}" in model.lines()[1]
    assert model.to_json()["mean_average_precision"] == round(float(np.mean(each)), 4)


def test_the_threshold_serves_the_aim(table: Path) -> None:
    shares, aims = {}, ("f1", "precision=0.8", "recall=0.99", "precision=0.999")
    for aim in aims:
        made = seewhy.fit_multi(table, encoder=colours(), settings=EASY, aim=aim)
        assert made.to_json()["aim"] == str(made.aim) == aim
        p, true, _ = held_out("light", made.decisions["light"])
        threshold = made.measures["light"].threshold
        if aim == aims[-1]:
            assert threshold is None
            assert "never given" in made.measures["light"].line
            assert not any(one.given for one in predicted(made, table))
            continue
        assert threshold is not None
        shares[aim] = (precision_score(true, p >= threshold), recall_score(true, p >= threshold))
    assert shares["precision=0.8"][0] >= 0.8
    assert shares["recall=0.99"][1] >= 0.99
    assert shares["recall=0.99"][0] < shares["precision=0.8"][0]


def test_a_label_is_given_from_its_threshold_on(model: MultiOutput, later: Path) -> None:
    made = predicted(model, later)
    verdicts = Counter[str]()
    for one in made:
        for name, label in one.labels.items():
            threshold = model.measures[name].threshold
            assert threshold is not None
            assert label.given is (label.probability >= threshold)
            assert label.possible or not label.given
            decision = one.predictions[name].decision
            assert decision is not None
            assert label.verdict == decision.verdict
            verdicts[label.verdict] += 1
        assert set(one.given) == {name for name, label in one.labels.items() if label.given}
        probabilities = [one.labels[name].probability for name in one.given]
        assert probabilities == sorted(probabilities, reverse=True)
        assert not set(one.given) & set(one.possible)
    assert len(verdicts) > 1


def test_a_true_label_is_missed_as_rarely_as_promised(model: MultiOutput, table: Path, later: Path) -> None:
    """Conformal risk control: of ``n`` held-out pictures with a label, at most ``(n + 1) · 10 % − 1`` lie below."""
    least = model.least(0.9)
    for name, one in model.decisions.items():
        p, true, _ = held_out(name, one)
        missed = int((p[true] < least[name]).sum())
        n = int(true.sum())
        assert missed <= 0.1 * (n + 1) - 1 + 1e-9 or (missed == 0 and least[name] == 0)
    found = predicted(model, later)
    for name in model.decisions:
        with_it = zip(found, truth(later, name).tolist(), strict=True)
        kept = [one.labels[name].possible for one, has in with_it if has]
        assert np.mean(kept) > 0.75  # 90 % promised; 25 to 45 pictures
    stricter = model.least(0.5)
    assert all(stricter[name] >= least[name] for name in least)
    assert any(stricter[name] > least[name] for name in least)


def test_a_picture_is_encoded_once(model: MultiOutput, later: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = []
    pictures = [s.image for s in load_answers(later).items[:5]]
    encode = Encoder.encode

    def counted(self: Encoder, pixels: Any, *rest: Any, **more: Any) -> Any:
        n.append(len(pixels))
        return encode(self, pixels, *rest, **more)

    monkeypatch.setattr(Encoder, "encode", counted)
    list(model.predict_all(pictures))
    together = sum(n)
    n.clear()
    list(model.decisions["warm"].predict_all(pictures))
    assert together == sum(n) == 5


def test_a_broken_picture_is_one_failure(model: MultiOutput, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    good = paint(tmp_path / "good.png", True, True, 5)
    found = model.predict([str(tmp_path / "broken.png"), good])
    assert isinstance(found, list)
    assert isinstance(found[0], Failure)
    assert isinstance(found[1], MultiPrediction)
    one = model.predict(good)
    assert isinstance(one, MultiPrediction)
    assert one.to_json() == found[1].to_json()


def test_a_broken_picture_is_told_once_by_a_fit(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table.parent, tmp_path / "d")
    (tmp_path / "d" / "20.png").write_bytes(b"no picture")
    progress = Progress()
    made = seewhy.fit_multi(tmp_path / "d" / "t.csv", encoder=colours(), settings=EASY, progress=progress)
    assert [Path(failure.image).name for failure in progress.failures] == ["20.png"]
    assert made.decisions["warm"].measures["n_pictures"] == 134


def test_what_is_saved_is_loaded(model: MultiOutput, questions: MultiOutput, later: Path, tmp_path: Path) -> None:
    for made in (model, questions):
        folder = made.save(tmp_path / made.kind)
        again = seewhy.load_multi(folder, encoder=made.encoder)
        assert again.to_json() == made.to_json()
        assert again.lines() == made.lines()
        assert [p.to_json() for p in predicted(again, later)] == [p.to_json() for p in predicted(made, later)]
        first = again.decisions[next(iter(again.decisions))]
        assert all(one.base is first.base for one in again.decisions.values())
        assert made.save(folder) == folder  # over one that SeeWhy made
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(ForeignFileError, match="notes"):
        model.save(tmp_path / "notes")
    assert [one.name for one in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_a_changed_model_is_refused(model: MultiOutput, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "m")
    card = json.loads((folder / "outputs.json").read_text())
    one = card["decisions"][0]
    for place in ("../m/light", "/", ".", "warm/../light", 3, None):
        changed = {**card, "decisions": [{**one, "folder": place}, *card["decisions"][1:]]}
        (folder / "outputs.json").write_text(json.dumps(changed))
        with pytest.raises(ModelError, match=r"outputs\.json"):
            seewhy.load_multi(folder, encoder=colours())
    for changed in ({**card, "kind": "else"}, {**card, "measures": card["measures"][::-1]}, {**card, "aim": "best"}):
        (folder / "outputs.json").write_text(json.dumps(changed))
        with pytest.raises(ModelError, match=r"outputs\.json"):
            seewhy.load_multi(folder, encoder=colours())
    (folder / "outputs.json").write_text(json.dumps(card))
    own = folder / one["folder"] / CARD
    own.write_text(json.dumps({**json.loads(own.read_text()), "note": 1}))
    with pytest.raises(ModelError, match="was changed after"):
        seewhy.load_multi(folder, encoder=colours())
    with pytest.raises(ModelError, match="makes several decisions"):
        seewhy.load(folder)


def test_places_are_portable_and_differ() -> None:
    found = places(["a/b", "a_b", "A_B", "encoder", "..", "CON", "ü é"])
    folded = [place.casefold() for place in found.values()]
    assert len(set(folded)) == len(found)
    assert "encoder" not in folded
    assert not any("/" in place or "." in place for place in found.values())


def test_labels_that_are_given_are_explained_and_others_when_asked(model: MultiOutput, tmp_path: Path) -> None:
    light = paint(tmp_path / "light.png", True, False, 1)
    found = model.explain(light)
    assert subjects(found) == {"light": "light"}
    dark = paint(tmp_path / "dark.png", False, False, 2)
    assert [*model.explain(dark)] == []
    asked = model.explain(dark, target="warm")
    assert subjects(asked) == {"warm": "warm"}
    assert asked["warm"].prediction.label == "no warm"
    with pytest.raises(InputError, match="cold"):
        model.explain(dark, target="cold")


def test_each_question_is_explained(questions: MultiOutput, tmp_path: Path) -> None:
    found = questions.explain(paint(tmp_path / "p.png", True, True, 1))
    assert subjects(found) == {"tone": "light", "hue": "warm"}


def test_validation_chooses_and_measures(table: Path, later: Path) -> None:
    apart = load_answers(later, names=["light", "warm"])
    made = seewhy.fit_multi(table, encoder=colours(), settings=EASY, validation=apart)
    assert made.decisions["warm"].measures["n_pictures"] == 135
    assert made.measures["warm"].n == 81


def test_what_cannot_be_fitted_is_said(table: Path) -> None:
    with pytest.raises(InputError, match="fine_tune, which trains one network for all"):
        seewhy.fit_multi(table, encoder=colours(), method="protopnet")
    with pytest.raises(InputError, match="aim"):
        seewhy.fit_multi(table, encoder=colours(), aim="best")
    few = load_answers(table).part(range(8))
    with pytest.raises(DataError, match="No decision could be learnt"):
        seewhy.fit_multi(few, encoder=colours(), settings=EASY)


def test_pictures_in_memory_with_a_matrix(table: Path) -> None:
    answers = load_answers(table, names=["light", "warm"])
    pixels = [np.asarray(Image.open(s.image)) for s in answers.items]
    columns = zip(*answers.given.values(), strict=True)
    matrix = np.array([[np.nan if not a else float(not a.startswith("no ")) for a in row] for row in columns])
    made = seewhy.fit_multi(pixels, matrix, colours(), names=["light", "warm"], settings=EASY)
    assert made.decisions["light"].measures["n_pictures"] == 135
    assert made.mean_average_precision == pytest.approx(
        seewhy.fit_multi(answers, encoder=colours(), settings=EASY).mean_average_precision
    )


def test_every_figure_of_labels_by_scikit_learn(model: MultiOutput, later: Path) -> None:
    data = evaluate_multi(model, later).data
    known = [i for i in range(90) if i % 10 != 9]
    every = predicted(model, later)
    made = [every[i] for i in known]
    each = []
    for row in data["labels"]:
        name, true = row["label"], truth(later, row["label"])[known].numpy()
        given = np.array([name in one.given for one in made])
        possible = np.array([one.labels[name].possible for one in made])
        each.append(average_precision_score(true, [one.labels[name].probability for one in made]))
        assert (row["n"], row["n_with"]) == (81, int(true.sum()))
        assert row["average_precision"] == round(each[-1], 4)
        assert row["precision"] == round(precision_score(true, given), 4)
        assert row["recall"] == round(recall_score(true, given), 4)
        assert row["covered"] == round(float(possible[true].mean()), 4)
        assert row["possible"] == round(float(possible.mean()), 4)
        assert row["average_precision_interval"][0] <= each[-1] <= row["average_precision_interval"][1] + 1e-9
    assert data["mean_average_precision"] == round(float(np.mean(each)), 4)
    low, high = data["mean_average_precision_interval"]
    assert low < data["mean_average_precision"] < high
    assert data["macro_f1"] == pytest.approx(np.mean([row["f1"] for row in data["labels"]]), abs=1e-4)
    assert any("1 labels that are not among the 2 known" in note for note in data["notes"])


def test_every_figure_of_questions_by_hand(questions: MultiOutput, later: Path) -> None:
    data = evaluate_multi(questions, later).data
    answers = load_answers(later, questions=["tone", "hue"])
    found = predicted(questions, later)
    all_right = np.ones(90, dtype=bool)
    for row in data["questions"]:
        name = row["question"]
        right = [
            (i, one.predictions[name].label == answer)
            for i, (one, answer) in enumerate(zip(found, answers.given[name], strict=True))
            if answer
        ]
        assert row["n"] == len(right) == (90 if name == "tone" else 78)
        assert row["accuracy"] == round(float(np.mean([flag for _, flag in right])), 4)
        assert row["held_out_accuracy"] == questions.decisions[name].measures["held_out_accuracy"]
        assert sum(map(sum, row["confusion_matrix"]["counts"])) == row["n"]
        for i, flag in right:
            all_right[i] &= flag
    assert data["all_right"] == round(float(all_right.mean()), 4)
    assert data["all_right"] < min(row["accuracy"] for row in data["questions"])


def test_an_evaluation_says_what_it_left_out(model: MultiOutput, questions: MultiOutput, table: Path) -> None:
    assert any("was fitted on 150 of these 150" in note for note in evaluate_multi(questions, table).data["notes"])
    answers = load_answers(table, questions=["tone", "hue"])
    odd = replace(answers, given={**answers.given, "tone": ("grey", *answers.given["tone"][1:])})
    data = evaluate_multi(questions, odd).data
    assert next(row["n"] for row in data["questions"] if row["question"] == "tone") == 149
    assert any("1 answers to tone that the model does not know" in note for note in data["notes"])
    none = Answers("labels", answers.items, {"light": ("no light",) * 150, "warm": ("",) * 150})
    data = evaluate_multi(model, none).data
    assert [row["label"] for row in data["labels"]] == ["light"]
    assert data["labels"][0]["average_precision"] is None
    assert data["mean_average_precision"] is None
    with pytest.raises(DataError, match="None of these answers"):
        evaluate_multi(questions, replace(answers, given={"hue": ("grey",) * 150}))


def test_the_page_of_an_evaluation_has_its_figures(model: MultiOutput, later: Path) -> None:
    page = evaluate_multi(model, later).to_html()
    assert "Mean average precision" in page
    assert "Label by label" in page
    assert "warm" in page


def test_groups_stay_together_and_widen_the_interval(table: Path) -> None:
    answers = load_answers(table, names=["light"])
    pairs = [replace(item, group=str(i // 2)) for i, item in enumerate(answers.items)]
    made = seewhy.fit_multi(replace(answers, items=tuple(pairs)), encoder=colours(), settings=EASY)
    p, true, groups = held_out("light", made.decisions["light"])
    assert len(groups.unique()) < 0.6 * len(p)
    interval = interval_of(lambda weights: average_precision(p, true, weights), groups)
    assert made.measures["light"].average_precision_interval == pytest.approx(interval)
    report = evaluate_multi(made, replace(answers, items=tuple(pairs))).data["labels"][0]
    alone = evaluate_multi(made, answers).data["labels"][0]
    assert report["average_precision_interval"] != alone["average_precision_interval"]
    assert report["average_precision"] == alone["average_precision"]


def test_the_fewest_pictures_of_a_label() -> None:
    _check_enough("a", 5 * ["a"] + 5 * ["no a"])
    for n_with, n_without in ((4, 5), (5, 4)):
        with pytest.raises(DataError, match="At least 5 pictures must"):
            _check_enough("a", n_with * ["a"] + n_without * ["no a"])


def test_a_gain_is_that_of_the_second(model: MultiOutput) -> None:
    """The held-out scores of a label, turned around: the gain is the difference of the average precisions."""
    good = model.decisions["light"]
    assert good.held_out is not None
    assert good.held_out.logits is not None
    bad = replace(good, held_out=replace(good.held_out, logits=-good.held_out.logits))
    p, true, _ = held_out("light", good)
    expected = average_precision_score(true, p) - average_precision_score(true, 1 - p)
    for first, second, sign in ((bad, good, 1), (good, bad, -1)):
        gain, error = _gain("labels", "light", first, second)
        assert gain == pytest.approx(sign * expected, abs=1e-6)
        assert 0 < error < abs(gain)
    right = (good.held_out.logits.argmax(1) == good.held_out.labels).double().mean()
    assert _gain("questions", "light", bad, good)[0] == pytest.approx(2 * float(right) - 1, abs=1e-6)


def test_the_bank_of_a_decision_is_a_part_of_one(table: Path) -> None:
    def sizes(n_bank: int) -> list[int]:
        how = {**EASY, "n_bank": n_bank}
        made = seewhy.fit_multi(table, encoder=colours(), questions=["tone", "hue"], settings=how)
        return [len(one.bank.pictures) for one in made.decisions.values() if one.bank is not None]

    assert max(sizes(10)) == 100
    assert max(sizes(220)) == 110  # one question has too few pictures of a class


def test_a_decision_that_is_not_sure_says_so(questions: MultiOutput, later: Path) -> None:
    for one in predicted(questions, later):
        for (name, made), part in zip(one.predictions.items(), one.parts, strict=True):
            assert made.decision is not None
            verdict = made.decision.verdict
            assert part.startswith(f"{name}: {made.label} ")
            assert part.endswith(f"({verdict})") is (verdict != "sure")
    verdicts = {
        made.decision.verdict
        for one in predicted(questions, later)
        for made in one.predictions.values()
        if made.decision
    }
    assert {"sure", "not sure"} <= verdicts


def test_an_evaluation_goes_on_past_a_broken_picture(questions: MultiOutput, later: Path, tmp_path: Path) -> None:
    shutil.copytree(later.parent, tmp_path / "d")
    (tmp_path / "d" / "0.png").write_bytes(b"no picture")
    lines = (tmp_path / "d" / "t.csv").read_text().splitlines()
    whole = evaluate_multi(questions, later).data["questions"][0]
    data = evaluate_multi(questions, tmp_path / "d" / "t.csv").data
    assert [Path(one["image"]).name for one in data["failures"]] == ["0.png"]
    first = predicted(questions, later)[0].predictions["tone"].label == lines[1].split(",")[2]
    n_right = round(whole["accuracy"] * 90) - first
    assert data["questions"][0]["n"] == 89
    assert data["questions"][0]["accuracy"] == round(n_right / 89, 4)


def test_a_validation_answer_that_is_not_learnt_is_noted(table: Path, later: Path) -> None:
    apart = load_answers(later, questions=["tone"])
    odd = replace(apart, given={"tone": ("grey", *apart.given["tone"][1:])})
    made = seewhy.fit_multi(table, encoder=colours(), questions=["tone"], settings=EASY, validation=odd)
    assert made.decisions["tone"].measures["n_held_out"] == 89
    assert any("grey" in note for note in made.decisions["tone"].measures["notes"])
