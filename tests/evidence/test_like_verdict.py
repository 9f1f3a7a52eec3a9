"""What a card says of likenesses: beside chance, and of the class that is explained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.errors import InputError
from seewhy.explanation.base import Where
from seewhy.explanation.measures import PatchDeletion
from seewhy.explanation.similar import Like
from seewhy.pictures.samples import load_samples
from seewhy.prototypes.base import RULE, Group, Match
from seewhy.prototypes.judging import Showing, beats_chance, neighbours_verdict
from seewhy.prototypes.measure import LikenessMeasure
from tiny import class_folders, noise, picture, tiny_cnn


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return Linear(n_crops=0).fit(tiny_cnn(), load_samples(class_folders(tmp_path_factory.mktemp("data"), 6)))


@pytest.mark.parametrize(
    ("precision", "chance", "beats"),
    [
        (0.93, 0.9, False),
        (0.97, 0.9, True),
        (0.5, 0.5, False),
        (0.75, 0.5, True),
        (0.18, 0.01, True),
        (1.0, 1 / 3, True),
    ],
)
def test_three_times_the_odds_of_chance(precision: float, chance: float, beats: bool) -> None:
    assert beats_chance(LikenessMeasure(precision, chance, 20)) is beats


@pytest.mark.parametrize(("chance", "levels"), [(0.1, {"believable", "partly"}), (0.9, {"do not rely"})])
def test_what_chance_does_as_well_is_not_believable(fitted: Classifier, chance: float, levels: set[str]) -> None:
    like = replace(fitted, likeness=LikenessMeasure(0.93, chance, 20)).explain(picture("rust", 41), measure=False).like
    assert isinstance(like, Like)
    assert like.verdict.level in levels


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
    sure = replace(fitted, likeness=LikenessMeasure(1.0, 1 / 3, 20))
    why = sure.explain(picture("moss", 41), measure=False)
    assert why.subject is not None
    assert isinstance(why.like, Like)
    assert sure.bank is not None
    of_moss = int((sure.bank.labels == sure.index_of("moss")).nonzero()[0])
    groups = [Group((0, 0), 0.2, (Match(of_moss, 1.0),))]
    look = sure.encoder.encode(noise(1, 5))
    showing = Showing(sure, sure.bank, look, sure.index_of("moss"), why.subject, groups, why.like.neighbours)
    lowers, raises = PatchDeletion(3.0, 0.5, (0.1, 0.1), 0.1), PatchDeletion(3.0, -0.2, (-0.5, -0.3), 0.1)
    assert neighbours_verdict(RULE, replace(showing, deletion=lowers)).level == "believable"
    of_rust = int((sure.bank.labels == sure.index_of("rust")).nonzero()[0])
    half = [Group((0, 0), 0.2, (Match(of_moss, 1.0), Match(of_rust, 1.0)))]
    assert neighbours_verdict(RULE, replace(showing, groups=half, deletion=lowers)).level == "partly"
    partly = neighbours_verdict(RULE, replace(showing, deletion=raises))
    assert partly.level == "partly"
    assert "takes −0.2 from the lead of moss, 3.0, hiding as much elsewhere −0.4 (at most −0.3)." in partly.sentence


def test_of_another_target_its_own_neighbours_are_counted(fitted: Classifier) -> None:
    why = fitted.explain(picture("moss", 40), measure=False, target="rust")
    assert why.prediction.label == "moss"
    assert isinstance(why.like, Like)
    assert why.like.target == "rust"
    here = sum(n.label == "rust" for n in why.like.neighbours) / len(why.like.neighbours)
    assert f"of those shown here {here:.0%} are rust" in why.like.verdict.sentence


def test_a_class_is_not_explained_against_itself(fitted: Classifier) -> None:
    same = "Target and contrast are the same. Two different ones were expected. Change one of them."
    with pytest.raises(InputError) as told:
        fitted.explain(picture("moss", 40), target="rust", contrast="rust")
    assert str(told.value) == same
    where = fitted.explain(picture("moss", 40), measure=False, contrast="moss").where
    assert isinstance(where, Where)
    assert where.target == "moss"
    assert where.contrast == fitted.explain(picture("moss", 40), measure=False).prediction.top[1].label
    assert not where.is_zero
