"""What a card says of likenesses: beside chance, and of the class that is explained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.errors import InputError
from seewhy.explanation.base import Subject, Where
from seewhy.explanation.prediction import Decision
from seewhy.explanation.similar import Like, NeighbourShare, PatchDeletion
from seewhy.pictures.samples import load_samples
from seewhy.prototypes.bank import PatchBank
from seewhy.prototypes.base import Group, Match
from seewhy.prototypes.measure import NEVER, Band, LikenessMeasure, Showing, Trial, judge_neighbours, trials
from seewhy.prototypes.nearest import NearestPatches
from tiny import class_folders, noise, picture, tiny_cnn


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return Linear(n_crops=0).fit(tiny_cnn(), load_samples(class_folders(tmp_path_factory.mktemp("data"), 6)))


GOOD = LikenessMeasure(0.9, 1 / 3, 60, limit=0.4, near=-1.0, bands=(Band(0.0, 20, 13), Band(0.75, 40, 39)))


def shown(fitted: Classifier, labels: str, similarity: float = 1.0, measure: LikenessMeasure = GOOD) -> Showing:
    """Patches of rust (r) and moss (m) for one region of a picture that is decided for as moss."""
    model = replace(fitted, likeness=measure)
    assert model.bank is not None
    of = {name[0]: int((model.bank.labels == model.index_of(name)).nonzero()[0]) for name in ("moss", "rust")}
    groups = [Group((0, 0), 0.2, tuple(Match(of[c], similarity) for c in labels))]
    look = model.encoder.encode(noise(1, 5))
    return Showing(model, model.bank, look, model.index_of("moss"), Subject("moss", "moss"), groups, ())


LOWERS, RAISES = PatchDeletion(3.0, 0.5, (0.1, 0.1), 0.1), PatchDeletion(3.0, -0.2, (-0.5, -0.3), 0.1)


@pytest.mark.parametrize(
    ("labels", "level"),
    [
        ("mmmm", "believable"),
        ("mmmr", "believable"),
        ("mmrr", "partly"),  # 13 of 20 like it were right
        ("mrrr", "do not rely"),  # a wrong class has as many
        ("rrrr", "do not rely"),
    ],
)
def test_the_picture_decides(fitted: Classifier, labels: str, level: str) -> None:
    showing = replace(shown(fitted, labels), deletion=LOWERS)
    assert judge_neighbours(NearestPatches(), showing).verdict.level == level


@pytest.mark.parametrize(
    ("changed", "level"),
    [
        ({}, "believable"),
        ({"limit": NEVER}, "do not rely"),
        ({"bands": (Band(0.0, 20, 17),)}, "partly"),  # 17 of 20
        ({"bands": (Band(0.0, 7, 7),)}, "partly"),  # seven of seven are too few
        ({"bands": (Band(0.0, 20, 9),)}, "do not rely"),  # less than half
        ({"bands": (Band(0.0, 20, 13),), "chance": 0.5}, "do not rely"),  # 13 of 20 may be luck where half is chance
        ({"bands": (Band(0.0, 20, 13),), "chance": 0.4}, "partly"),
    ],
)
def test_held_out_pictures_say_how_many_are_enough(fitted: Classifier, changed: dict[str, Any], level: str) -> None:
    showing = shown(fitted, "mmmm", measure=replace(GOOD, **changed))
    assert judge_neighbours(NearestPatches(), showing).verdict.level == level


def test_few_that_were_right_among_many_that_were_not_say_little() -> None:
    wrong = Band(0.0, 300, 30)
    assert replace(GOOD, bands=(Band(0.0, 10, 5),)).rate(Band(0.5, 10, 5)) == 0.5
    assert replace(GOOD, bands=(wrong, Band(0.5, 10, 5))).rate(Band(0.5, 10, 5)) < 0.45


def test_the_sentence_has_the_figures(fitted: Classifier) -> None:
    like = judge_neighbours(NearestPatches(), shown(fitted, "mmrr"))
    assert like.verdict.sentence == ("50 % of the most similar parts are moss, which leaves the decision uncertain.")
    assert like.verdict.figures == (
        "50 % of the parts shown are moss. For a wrong class, this share is 40 % or more on at most 1 in 20 held-out "
        "pictures. Of 20 held-out pictures with about as many matches, 65 % were predicted correctly. These parts hold "
        "20 % of the evidence for moss."
    )
    assert like.of_target == NeighbourShare(0.5, 0.4, 1.0, -1.0, 20, 13)


@pytest.mark.parametrize(
    ("band", "but"),
    [
        (Band(0.0, 40, 40), ""),
        (Band(0.0, 7, 7), ", but few held-out pictures have such a share"),
        (Band(0.0, 20, 17), ", which leaves the decision uncertain"),
        (Band(0.0, 20, 9), ", and such decisions are mostly wrong"),
    ],
)
def test_the_sentence_says_what_is_wrong_with_as_many(fitted: Classifier, band: Band, but: str) -> None:
    verdict = judge_neighbours(NearestPatches(), shown(fitted, "mmmm", measure=replace(GOOD, bands=(band,)))).verdict
    assert verdict.sentence == f"100 % of the most similar parts are moss{but}."
    assert verdict.level == ("believable" if not but else "do not rely" if "mostly wrong" in but else "partly")


def test_a_class_that_was_not_decided_for_is_partly_at_best(fitted: Classifier) -> None:
    showing = replace(shown(fitted, "mmmm"), subject=Subject("rust", "moss"))
    verdict = judge_neighbours(NearestPatches(), showing).verdict
    assert verdict.level == "partly"
    assert verdict.sentence.endswith("are moss, but the decision is another class.")
    assert "The decision is another class." in verdict.figures


def test_neighbours_that_are_far_for_neighbours_are_none(fitted: Classifier) -> None:
    like = judge_neighbours(NearestPatches(), shown(fitted, "mmmm", 0.5, replace(GOOD, near=0.6)))
    assert like.verdict.level == "do not rely"
    assert like.verdict.sentence == "Even the most similar parts of your pictures look different."
    assert like.verdict.figures.startswith(
        "The nearest parts have a mean cosine of 0.50; 19 of 20 held-out pictures have 0.60 or more. 100 % of the most"
    )
    assert judge_neighbours(NearestPatches(), shown(fitted, "mmmm", 0.6, replace(GOOD, near=0.6))).verdict.level == (
        "believable"
    )


def test_of_a_stranger_nothing_is_green(fitted: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    known = replace(fitted, likeness=GOOD).explain(picture("moss", 41), measure=False)
    assert known.agreement.score is not None
    stranger = Decision("unlike anything it knows", "", ("moss",), 0.9)
    monkeypatch.setattr("seewhy.classifiers.certainty.decide", lambda *_: (stranger,))
    why = replace(fitted, likeness=GOOD).explain(picture("moss", 41), measure=False)
    assert isinstance(why.like, Like)
    assert why.like.verdict.level == "do not rely"
    assert why.like.verdict.sentence.startswith(
        "The picture is unlike anything the classifier knows: even the most similar parts"
    )
    assert (why.agreement.score, why.agreement.parts) == (None, {})
    assert why.agreement.sentence == "The picture is unlike all training pictures, so agreement was not measured."


def test_every_picture_is_measured_by_a_fit_and_a_bank_without_its_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out-of-fold: all pictures count, as they were decided without them; none finds its own fold's patches."""
    samples = load_samples(class_folders(tmp_path / "data", 6))
    asked: list[tuple[set[str], set[str]]] = []

    def heard(model: Any, method: Any, bank: PatchBank, held_out: Any, n: int) -> Iterator[Trial]:
        held_out = list(held_out)
        asked.append(({p.name for p in bank.pictures}, {one.seen.name for one in held_out}))
        return trials(model, method, bank, held_out, n)

    monkeypatch.setattr("seewhy.classifiers.fitting.trials", heard)
    made = Linear(n_crops=0).fit(tiny_cnn(), samples)
    measured = [name for _, mine in asked for name in mine]
    assert made.held_out is not None
    assert made.held_out.logits is not None
    assert made.likeness is not None
    assert len(asked) > 1
    assert len(measured) == len(set(measured)) == len(samples)
    assert all(not known & mine for known, mine in asked)
    assert all(known | mine == {s.image for s in samples.items} for known, mine in asked)
    right = int((made.held_out.logits.argmax(1) == made.held_out.labels).sum())
    assert sum(band.right for band in made.likeness.bands) == right


@pytest.mark.parametrize(
    ("fall", "elsewhere", "matters", "most"),
    [
        (0.5, (0.1, 0.3), True, True),
        (0.25, (0.1, 0.3), True, False),
        (0.1, (0.2, 0.3), False, False),
        (
            -0.2,
            (-0.4, -0.3),
            False,
            False,
        ),  # hiding raises the lead, less than elsewhere: no evidence
    ],
)
def test_places_matter_where_hiding_them_lowers_the_lead(
    fall: float, elsewhere: tuple[float, ...], matters: bool, most: bool
) -> None:
    found = PatchDeletion(3.0, fall, elsewhere, 0.1)
    assert (found.matters, found.matters_most) == (matters, most)


def test_hiding_that_raises_the_lead_is_partly_at_best(fitted: Classifier) -> None:
    showing = shown(fitted, "mmmm")
    assert judge_neighbours(NearestPatches(), replace(showing, deletion=LOWERS)).verdict.level == "believable"
    partly = judge_neighbours(NearestPatches(), replace(showing, deletion=RAISES)).verdict
    assert partly.level == "partly"
    assert partly.sentence.endswith(", but hiding these parts changes the prediction no more than hiding others.")
    lead = "mean logit, 3.0) by −0.2; hiding other parts of the same size lowers it by −0.4 (at most −0.3)."
    assert lead in partly.figures


def test_of_another_target_its_own_neighbours_are_counted(fitted: Classifier) -> None:
    why = fitted.explain(picture("moss", 40), measure=False, target="rust")
    assert why.prediction.label == "moss"
    assert isinstance(why.like, Like)
    assert why.like.target == "rust"
    here = sum(n.label == "rust" for n in why.like.neighbours) / len(why.like.neighbours)
    assert f"{here * 100:.0f} % of the most similar parts are rust" in why.like.verdict.sentence


def test_a_class_is_not_explained_against_itself(fitted: Classifier) -> None:
    same = "`target` and `contrast` must be two different classes."
    with pytest.raises(InputError) as told:
        fitted.explain(picture("moss", 40), target="rust", contrast="rust")
    assert str(told.value) == same
    where = fitted.explain(picture("moss", 40), measure=False, contrast="moss").where
    assert isinstance(where, Where)
    assert where.target == "moss"
    assert where.contrast == fitted.explain(picture("moss", 40), measure=False).prediction.top[1].label
    assert not where.is_zero
