"""The vote of the nearest: plain arithmetic, exact evidence, and nobody votes for themselves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.attributions.shares import cell_evidence
from seewhy.classifiers import neighbours
from seewhy.classifiers.base import Classifier
from seewhy.classifiers.neighbours import Neighbours
from seewhy.classifiers.saving import load
from seewhy.encoders.base import Encoder
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.errors import InputError
from seewhy.heads.head import Head, Target
from seewhy.heads.normalise import Normalise
from seewhy.heads.votes import Votes
from seewhy.pictures.samples import load_samples
from seewhy.prototypes.voters import scores_of
from tiny import class_folders, colour_reader, noise, tiny_cnn, tiny_tokens

OWNER = torch.tensor([0, 0, 1, 1, 2])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), 8)


@pytest.fixture(scope="module")
def fitted(folders: Path) -> Classifier:
    return Neighbours().fit(tiny_cnn(), load_samples(folders))


def test_the_vote_by_hand() -> None:
    scores = torch.tensor([[2.0, 1.0, 1.5, 0.0, -1.0]])
    # The three nearest are 0, 2 and 1; class 2 has none among them and votes with its nearest.
    logits = Votes(OWNER, 3, 3)(scores)[0].exp()
    e = np.exp
    torch.testing.assert_close(logits, torch.tensor([e(2.0) + e(1.0), e(1.5), e(-1.0)], dtype=torch.float))
    all_vote = Votes(OWNER, 3, 50)(scores)[0].exp()
    expected = [e(2.0) + e(1.0), e(1.5) + e(0.0), e(-1.0)]
    torch.testing.assert_close(all_vote, torch.tensor(expected, dtype=torch.float))
    nearest = Votes(OWNER, 3, 1)(scores)[0]
    torch.testing.assert_close(nearest, torch.tensor([2.0, 1.5, -1.0]))


def test_ties_at_the_last_place_leave_every_class_its_nearest_picture() -> None:
    assert Votes(torch.tensor([0, 1]), 2, 1)(torch.ones(1, 2))[0].tolist() == [1.0, 1.0]
    tied = Votes(torch.tensor([0, 0, 1]), 2, 2)(torch.full((1, 3), 5.0))[0]
    torch.testing.assert_close(tied, torch.tensor([5 + float(np.log(2)), 5.0]))


def test_shares_are_those_of_the_vote() -> None:
    scores = torch.tensor([[2.0, 1.0, 1.5, 0.0, -1.0], [0.0, 0.1, 0.2, 0.3, 0.4]])
    votes = Votes(OWNER, 3, 50)
    torch.testing.assert_close(votes.share(scores), scores.softmax(1))
    by_class = torch.zeros(2, 3).scatter_add(1, OWNER.expand(2, -1), votes.within(scores))
    torch.testing.assert_close(by_class, torch.ones(2, 3))


def test_large_similarities_do_not_overflow() -> None:
    scores = torch.tensor([[300.0, -300.0, 299.0, 0.0, -300.0]])
    votes = Votes(OWNER, 3, 2)
    assert votes(scores).isfinite().all()
    assert votes.within(scores).isfinite().all()
    assert float(votes(scores).softmax(1)[0, 0]) == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-4)


def test_evidence_adds_up_to_the_logit(fitted: Classifier) -> None:
    """Behind a mean the cells' parts, and the entropy of who votes, are the logit; the gradient agrees."""
    look = fitted.encoder.encode(noise(4))
    index = torch.tensor([0, 1, 2, 0])
    target = Target(index, torch.tensor([1, 2, 0, 2]))
    head, votes = fitted.head, fitted.head.votes
    assert votes is not None
    scores = head.feature(look.pooled) @ head.weight.T
    part = votes.within(scores)
    entropy = torch.zeros(4, 3).scatter_add(1, votes.owner.expand(4, -1), -part * part.clamp(min=1e-30).log())
    evidence = cell_evidence(fitted, look, target).sum((1, 2)) + head.scale * target(entropy)
    torch.testing.assert_close(evidence, target(head(look.pooled)), atol=1e-3, rtol=1e-4)
    leaf = look.pooled.clone().requires_grad_()
    found = torch.autograd.grad(target(head(leaf)).sum(), leaf)[0]
    step = 1e-3 * torch.nn.functional.normalize(found, dim=1)
    rise = target(head(look.pooled + step)) - target(head(look.pooled - step))
    torch.testing.assert_close(rise, 2e-3 * found.norm(dim=1), rtol=0.05, atol=1e-4)


def test_without_another_class_the_mean_over_classes_is_taken_off(fitted: Classifier) -> None:
    look = fitted.encoder.encode(noise(2))
    plain = fitted.head.slope(look.pooled, Target(torch.tensor([1, 1])))
    pairs = [fitted.head.slope(look.pooled, Target(torch.tensor([1, 1]), torch.tensor([o, o]))) for o in (0, 1, 2)]
    torch.testing.assert_close(plain, torch.stack(pairs).mean(0), atol=1e-4, rtol=1e-4)


def test_planted_evidence_is_found() -> None:
    """Red and blue pictures vote; of a grey picture with one red corner, the corner speaks for red."""
    weight = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]]), dim=1)
    head = Head(Normalise(l2=True), weight / 0.1, votes=Votes(torch.tensor([0, 0, 1]), 2, 2))
    encoder: Encoder = colour_reader()
    classifier = Classifier("neighbours", {}, encoder, ("red", "blue"), head)
    pixels = torch.full((1, 3, 32, 32), 0.2)
    pixels[0, 0, :8, 24:] = 3.0
    look = encoder.encode(pixels)
    evidence = cell_evidence(classifier, look, Target(torch.tensor([0]), torch.tensor([1])))[0]
    assert divmod(int(evidence.argmax()), 8) in [(r, c) for r in (0, 1) for c in (6, 7)]


def test_leave_one_out_is_that_of_a_plain_loop(folders: Path) -> None:
    samples = load_samples(folders)
    made = Neighbours(k=3, temperature=0.05, held_out=0.0).fit(tiny_cnn(), samples)
    votes, head = made.head.votes, made.head
    assert votes is not None
    unit = head.weight * 0.05
    right = 0
    for i in range(len(unit)):
        others = [j for j in range(len(unit)) if j != i]
        cosine = (unit[others] @ unit[i]).tolist()
        near = sorted(zip(cosine, others, strict=True), reverse=True)[:3]
        tally = [sum(np.exp(c / 0.05) for c, j in near if votes.owner[j] == k) for k in range(3)]
        right += int(np.argmax(tally)) == int(votes.owner[i])
    assert made.measures["leave_one_out_accuracy"] == round(right / len(unit), 4)
    assert made.measures["held_out_accuracy"] is None


def test_copies_of_a_picture_do_not_vouch_for_it(tmp_path: Path) -> None:
    """Two classes of the same noise, every picture there twice: right only by looking at the copy."""
    for label in ("left", "right"):
        (tmp_path / label).mkdir()
        for i in range(12):
            path = tmp_path / label / f"{i}.png"
            seeded = np.random.default_rng([i, label == "left"])
            Image.fromarray(seeded.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
            shutil.copy(path, tmp_path / label / f"{i} again.png")
    made = Neighbours(k=1, n_crops=0, held_out=0.0).fit(tiny_cnn(), load_samples(tmp_path))
    assert made.measures["leave_one_out_accuracy"] < 0.8


def test_what_is_chosen_is_the_best_of_all_tried(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = load_samples(folders)
    chosen = Neighbours().fit(tiny_cnn(), samples).measures
    every = [
        Neighbours(k=k, temperature=t).fit(tiny_cnn(), samples).measures["leave_one_out_accuracy"]
        for k in (1, 5, 100)
        for t in (0.01, 0.2)
    ]
    assert chosen["leave_one_out_accuracy"] >= max(every)
    assert chosen["k"] in neighbours.KS
    assert chosen["temperature"] in neighbours.TEMPERATURES


@pytest.mark.parametrize("encoder", [tiny_cnn, tiny_tokens])
def test_saved_and_loaded(encoder: object, folders: Path, tmp_path: Path) -> None:
    made = Neighbours(n_crops=1).fit(encoder(), load_samples(folders))  # type: ignore[operator]
    again = load(made.save(tmp_path / "model"), encoder=made.encoder)
    assert torch.equal(again.probabilities(noise(5)), made.probabilities(noise(5)))
    assert again.head.votes is not None
    assert made.head.votes is not None
    assert again.head.votes.names == made.head.votes.names


def test_voters(fitted: Classifier, folders: Path) -> None:
    own, votes = folders / "moss" / "moss_0.png", fitted.head.votes
    assert isinstance(votes, Votes)
    (seen,) = encode_stream(fitted.encoder, [own])
    assert isinstance(seen, Encoded)
    scores = scores_of(fitted.head, seen.pooled[:1])[0]
    found = votes.ballot(scores)
    first, shares = found[0][0], [share for _, share in found]
    assert (votes.names[first], fitted.classes[int(votes.owner[first])]) == (str(own), "moss")
    assert float(scores[first] / fitted.head.weight[first].norm()) == pytest.approx(1, abs=1e-5)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert shares == sorted(shares, reverse=True)
    assert len(found) <= fitted.measures["k"] + 2, "the nearest, and one of each class beside"


def test_fields_out_of_range_are_refused() -> None:
    for wrong in ({"k": 0}, {"temperature": 0.0}, {"temperature": -1.0}):
        with pytest.raises(InputError, match=" of neighbours must be"):
            Neighbours(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"`k` must be at least 1, got 0\."):
        Votes(OWNER, 3, 0)
