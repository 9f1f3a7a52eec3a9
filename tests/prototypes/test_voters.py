"""The pictures that voted: those and no others, with what they really weighed, and the decision without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from seewhy.classifiers.base import Classifier
from seewhy.classifiers.linear.recipe import Linear
from seewhy.classifiers.neighbours import Neighbours
from seewhy.classifiers.saving import load
from seewhy.encoders.base import EncoderOutput
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.errors import InputError
from seewhy.evidence.like import like_place
from seewhy.explanation.base import Explanation, Subject
from seewhy.explanation.similar import Like, VoteRemoval
from seewhy.heads.head import Head, Target
from seewhy.heads.normalise import Normalise
from seewhy.heads.votes import Votes
from seewhy.pictures.samples import load_samples
from seewhy.prototypes.bank import BankPicture, PatchBank, cell_box, patch_vector
from seewhy.prototypes.base import Group, Query
from seewhy.prototypes.epic.training import FitEPIC
from seewhy.prototypes.find import find_prototypes
from seewhy.prototypes.measure import Showing
from seewhy.prototypes.nearest import NearestPatches
from seewhy.prototypes.voters import RULE, Voters, measure_removal, scores_of, vote_verdict
from tiny import class_folders, colour_reader, noise, picture, tiny_cnn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), 8)


@pytest.fixture(scope="module")
def fitted(folder: Path) -> Classifier:
    """Everybody votes, none by much."""
    return Neighbours(k=24, temperature=0.2).fit(tiny_cnn(), load_samples(folder))


@pytest.fixture(scope="module")
def why(fitted: Classifier) -> Explanation:
    return fitted.explain(picture("rust", 77), because="calibrated")


def like(e: Explanation) -> Like:
    assert isinstance(e.like, Like)
    return e.like


def test_shown_are_those_that_voted_with_what_they_weighed(fitted: Classifier, why: Explanation) -> None:
    votes, (seen,) = fitted.head.votes, encode_stream(fitted.encoder, [picture("rust", 77)])
    assert isinstance(votes, Votes)
    assert isinstance(seen, Encoded)
    scores = scores_of(fitted.head, seen.pooled[:1])[0].detach()
    cosines = (scores / fitted.head.weight.norm(dim=1)).tolist()
    voted = {
        votes.names[i]: (fitted.classes[int(votes.owner[i])], share, cosines[i]) for i, share in votes.ballot(scores)
    }
    shown = like(why).neighbours
    assert like(why).method == "voters"
    assert shown
    for near in shown:
        label, share, cosine = voted[near.image]
        assert near.label == label
        assert (near.share, near.similarity) == pytest.approx((share, cosine), abs=1e-5)
    for label in {n.label for n in shown}:
        mine = [n.image for n in shown if n.label == label]
        assert mine == [image for image, voter in voted.items() if voter[0] == label][: len(mine)]
        assert len(mine) == 4
    assert like(why).share_shown == pytest.approx(sum(n.share for n in shown))


def test_places_are_where_the_two_are_most_alike() -> None:
    """A grey picture with a red corner, and one red picture whose patches are kept: red and blue ones."""
    encoder = colour_reader()
    pixels = torch.full((2, 3, 32, 32), 0.2)
    pixels[0, 0, :8, 24:] = 3.0
    pixels[1, 0, 8:16, 8:16] = 3.0
    look = encoder.encode(pixels)
    grid = encoder.layout.to_grid(look.features)
    cells = [(6, 6), (2, 2), (2, 3)]
    vectors = torch.stack([patch_vector(grid[1], cell) for cell in cells])
    vectors[0] = torch.tensor([0.0, 0.0, 1.0])
    boxes = torch.tensor([cell_box(cell, (8, 8)) for cell in cells])
    source = BankPicture("red.png", "", 0, b"")
    bank = PatchBank((source,), torch.zeros(1, 3), torch.zeros(3).long(), boxes, torch.zeros(3, 4).long(), vectors)
    weight = normalize(look.pooled[1:], dim=1)
    head = Head(Normalise(l2=True), weight / 0.1, votes=Votes(torch.tensor([0]), 1, 1, ("red.png",)))
    model = Classifier("neighbours", {}, encoder, ("red",), head, bank=bank)
    (group,) = Voters()(model, bank, Query(look[:1], Target(torch.tensor([0]))))
    assert group.cell[0] <= 2
    assert group.cell[1] >= 5
    assert group.matches[0].patch in (1, 2)
    assert group.share == pytest.approx(1)


def test_crops_count_with_their_picture(folder: Path) -> None:
    made = Neighbours(k=200, temperature=0.2, n_crops=3).fit(tiny_cnn(), load_samples(folder))
    votes = made.head.votes
    assert isinstance(votes, Votes)
    assert len(votes.names) == 4 * 24
    query = tiny_cnn().encode(noise(1, 5)).pooled
    scores = made.head.feature(query) @ made.head.weight.T
    ballot = votes.ballot(scores[0])
    assert len(ballot) == 24
    shares = votes.share(scores)[0]
    for row, part in ballot:
        rows = [i for i, name in enumerate(votes.names) if name == votes.names[row]]
        assert part == pytest.approx(float(shares[rows].sum()), abs=1e-5)
        assert float(scores[0, row]) == float(scores[0, rows].max())
    assert votes.without(scores, [ballot[0][0]]).isfinite().all()
    assert len(votes.rows_of([ballot[0][0]])) == 4


def test_a_picture_that_was_fitted_on_is_seen_voting_for_itself(fitted: Classifier, folder: Path) -> None:
    own = str(folder / "rust" / "rust_3.png")
    first = like(fitted.explain(own, measure=False)).neighbours[0]
    assert first.image == own
    assert first.similarity == pytest.approx(1, abs=1e-4)


def test_the_class_explained_is_among_those_shown(fitted: Classifier) -> None:
    method = Voters(n_classes=1)
    look = fitted.encoder.encode(noise(1, 5))
    assert fitted.bank is not None
    for target in range(3):
        (group,) = method(fitted, fitted.bank, Query(look, Target(torch.tensor([target]))))
        assert {int(fitted.bank.labels[m.patch]) for m in group.matches} == {target}


def test_shares_fall_and_add_up_to_no_more_than_the_vote(fitted: Classifier) -> None:
    assert fitted.bank is not None
    query = Query(fitted.encoder.encode(noise(1, 5)), Target(torch.tensor([0])))
    groups = Voters(n_pictures=24, least=0.0)(fitted, fitted.bank, query)
    assert [g.share for g in groups] == sorted((g.share for g in groups), reverse=True)
    assert sum(g.share for g in groups) == pytest.approx(1, abs=1e-5)
    assert all(g.share == pytest.approx(sum(m.share or 0.0 for m in g.matches)) for g in groups)
    assert groups == Voters(n_pictures=24, least=0.0)(fitted, fitted.bank, query)


def test_what_the_bars_are_of_is_the_cosine_that_votes(fitted: Classifier, why: Explanation) -> None:
    found = find_prototypes(fitted)
    assert found is not None
    method, bank = found
    look: EncoderOutput = fitted.encoder.encode(noise(3, 6))
    maps = method.activation(fitted, bank, look, torch.tensor([0, 7]))
    assert maps.shape == (3, 2, 8, 8)
    assert torch.equal(maps, maps[:, :, :1, :1].expand_as(maps))
    unit = fitted.head.feature(look.pooled)
    votes = fitted.head.votes
    assert isinstance(votes, Votes)
    for place, patch in enumerate((0, 7)):
        row = votes.names.index(bank.pictures[int(bank.owner[patch])].name)
        assert torch.allclose(maps[:, place, 0, 0], unit @ normalize(fitted.head.weight[row], dim=0), atol=1e-5)
    for near in like(why).neighbours:
        assert near.because is not None
        assert near.because.lost["hue"] == pytest.approx(near.because.phi["hue"] / near.similarity, abs=1e-4)


def planted(n: int) -> tuple[Head, torch.Tensor]:
    """Every class has one picture near its queries and many of another class are farther: the near one decides."""
    x = torch.eye(2 * n)
    rows = torch.cat([x[:n], normalize(x[:n] + 0.8 * x[n:], dim=1), normalize(x[:n] + 0.9 * x[n:], dim=1)])
    owner = torch.cat([torch.zeros(n), torch.ones(2 * n)]).long()
    names = tuple(str(i) for i in range(3 * n))
    return Head(Normalise(l2=True), rows / 0.02, votes=Votes(owner, 2, 3, names)), x[:n]


def test_without_the_one_voter_the_decision_is_another() -> None:
    head, queries = planted(30)
    assert head(queries).argmax(1).tolist() == [0] * 30
    found = measure_removal(head, queries)
    assert found["n"] == 30
    assert found["changed"] == 1
    assert found["changed_random"] < 0.3
    assert found == measure_removal(head, queries)


def test_where_all_agree_nobody_is_missed() -> None:
    head = Head(Normalise(l2=True), torch.ones(9, 4) / 0.1, votes=Votes(torch.zeros(9).long(), 2, 9))
    assert measure_removal(head, torch.ones(3, 4)) == {"changed": 0.0, "changed_random": 0.0, "n": 3}


def test_the_card_says_what_would_be_without_them(fitted: Classifier, why: Explanation) -> None:
    removal = like(why).removal
    assert removal is not None
    gone = {n.image for n in like(why).neighbours if n.label == "rust"}
    assert removal.n == len(gone) == 4
    votes = fitted.head.votes
    assert isinstance(votes, Votes)
    left = [i for i, name in enumerate(votes.names) if name not in gone]
    (seen,) = encode_stream(fitted.encoder, [picture("rust", 77)])
    assert isinstance(seen, Encoded)
    fewer = replace_head(fitted.head, left)
    assert removal.label == fitted.classes[int(fewer(seen.pooled[:1]).argmax())]
    measured = why.to_json()["like_measured"]
    assert measured["removed"] == 4
    assert measured["without"] == removal.label
    assert measured["changed_on"] == fitted.measures["n_held_out"]
    assert measured["changed"] == fitted.measures["removal"]["changed"]


def replace_head(head: Head, left: list[int]) -> Head:
    votes: Any = head.votes
    names = tuple(votes.names[i] for i in left)
    return Head(head.feature, head.weight[left], scale=head.scale, votes=Votes(votes.owner[left], 3, votes.k, names))


def test_page_and_still_show_the_parts_of_the_vote(why: Explanation) -> None:
    page = why.to_html()
    section = page.split('id="like"')[1].split('id="words"')[0]
    assert section.count("<tr>") == 1 + len(like(why).neighbours)  # one in the table of figures for each that voted
    assert section.count('class="query"') == len({n.letter for n in like(why).neighbours})
    assert 'href="#def-vote"' in section
    assert 'href="#def-removed"' in section
    assert all(f'id="def-{key}"' in page for key in ("vote", "removed"))
    assert why.to_png().startswith(b"\x89PNG")


def test_what_decided_is_not_counted_as_agreeing(why: Explanation) -> None:
    assert "neighbours" not in why.agreement.parts


@pytest.mark.parametrize(
    ("changed", "by_chance", "part", "level"),
    [
        (0.5, 0.1, 0.9, "believable"),
        (0.5, 0.2, 0.9, "partly"),
        (0.0, 0.0, 0.9, "partly"),
        (0.2, 0.1, 0.2, "do not rely"),
    ],
)
def test_the_verdict_is_by_its_rule(
    fitted: Classifier, changed: float, by_chance: float, part: float, level: str
) -> None:
    removal = VoteRemoval(2, "moss", changed, by_chance, 20)
    assert fitted.bank is not None
    subject = Subject("rust", "rust")
    showing = Showing(
        fitted, fitted.bank, fitted.encoder.encode(noise(1, 5)), 1, subject, [Group((0, 0), part, ())], ()
    )
    verdict = vote_verdict(RULE, showing, removal, 5, 24)
    assert verdict.level == level
    asked = vote_verdict(RULE, replace(showing, subject=Subject("moss", "rust")), removal, 5, 24)
    assert asked.level == "do not rely"  # it did not win the vote
    assert verdict.sentence.endswith("of the vote; without the 2 of rust, moss would win.")
    assert verdict.figures.startswith("19 other pictures got the rest. On 20 held-out pictures")


def test_without_held_out_pictures_it_is_not_measured(folder: Path) -> None:
    made = Neighbours(k=3, held_out=0.0).fit(tiny_cnn(), load_samples(folder))
    found = like(made.explain(picture("rust", 77), measure=False))
    assert found.verdict.level == "not measured"
    assert found.to_json()["changed"] is None


def test_saved_and_loaded_it_is_the_same(fitted: Classifier, why: Explanation, tmp_path: Path) -> None:
    found = load(fitted.save(tmp_path / "model"), encoder=tiny_cnn())
    again = found.explain(picture("rust", 77), because="calibrated")
    assert [n.image for n in like(again).neighbours] == [n.image for n in like(why).neighbours]
    assert like(again).verdict == like(why).verdict


def test_nearest_patches_can_be_had_instead(fitted: Classifier) -> None:
    plain = like(fitted.explain(picture("rust", 77), like="nearest", measure=False))
    assert plain.method == "nearest"
    assert plain.removal is None
    assert (
        "of the vote"
        not in fitted.explain(picture("rust", 77), like="nearest", measure=False)
        .to_html()
        .split('id="like"')[1]
        .split('id="words"')[0]
    )


def test_epic_divides_a_vote_too(folder: Path, tmp_path: Path) -> None:
    """Its prototypes are shown once they are there; the voters can still be had."""
    samples = load_samples(folder)
    made = Neighbours(k=24, temperature=0.2).fit(tiny_cnn(), samples)
    made = replace(made, folder=made.save(tmp_path / "model"))
    assert made.folder is not None
    pictures = [(s.image, samples.classes.index(s.label)) for s in samples.items]
    bank = FitEPIC(duplicate=0.99999).fit(made, pictures)
    assert bank.measures["logit_difference"] < 1e-4
    bank.save(made.folder / "prototypes")
    assert like(made.explain(picture("rust", 77), measure=False)).method == "epic"
    assert like(made.explain(picture("rust", 77), like="voters", measure=False)).method == "voters"


def test_a_place_is_compared_with_patches(fitted: Classifier) -> None:
    request = EncodeRequest(features=lambda _i: True, pictures=True)
    (seen,) = encode_stream(fitted.encoder, [picture("rust", 77)], request=request)
    assert isinstance(seen, Encoded)
    assert seen.features is not None
    assert fitted.bank is not None
    query = Query(EncoderOutput(seen.features[None], seen.pooled[:1]), Target(torch.tensor([1])), [(2, 3)], seen.digest)
    (group,) = NearestPatches()(fitted, fitted.bank, query)
    found = like_place(fitted, seen, (2, 3), 1)
    assert [r.similarity for r in found.resembled] == [m.similarity for m in group.matches]


def test_a_classifier_whose_pictures_do_not_vote_says_how_to_get_one(folder: Path) -> None:
    made = Linear(n_crops=0).fit(tiny_cnn(), load_samples(folder))
    with pytest.raises(InputError) as caught:
        made.explain(picture("rust", 77), like="voters", measure=False)
    assert str(caught.value) == (
        "voters needs the pictures that voted, and this classifier has none. Train one with: "
        "seewhy fit DATA --method neighbours"
    )


def test_voters_that_are_not_kept_are_in_the_remainder(fitted: Classifier) -> None:
    assert fitted.bank is not None
    first = like(fitted.explain(picture("rust", 77), measure=False))
    gone = first.neighbours[0].image
    pictures = tuple(replace(p, name="elsewhere") if p.name == gone else p for p in fitted.bank.pictures)
    fewer = replace(fitted, bank=replace(fitted.bank, pictures=pictures))
    second = like(fewer.explain(picture("rust", 77), measure=False))
    assert gone not in {n.image for n in second.neighbours}
    assert second.share_shown < first.share_shown
