"""Labels before and after: what counts as help, and that nothing is tested on what it learnt from."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from seewhy.classifiers.certainty import why_unmeasured
from seewhy.errors import DataError
from seewhy.studies.refit import Labels, compare_labels, page, sentence
from seewhy.trust.groups import Grouping, group_by_looks
from tiny import colours

CLASSES = ("moss", "rust", "sky")
refitted = partial(compare_labels, n_folds=4)


def cloud(n: int = 40, gap: float = 1.2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of three classes that overlap a little, positive as a network's are."""
    draws = torch.Generator().manual_seed(seed)
    truth = torch.arange(3 * n) % 3
    centres = torch.eye(3, 12) * gap + 1
    return (centres[truth] + torch.randn(3 * n, 12, generator=draws) * 0.45).clamp(min=0.01), truth


def moved(truth: torch.Tensor, part: float, seed: int = 1) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(truth), generator=draws)[: round(part * len(truth))]
    return truth.index_copy(0, some, (truth[some] + 1) % 3)


def run(features: torch.Tensor, labels: Labels) -> dict[str, Any]:
    names = [f"{i}.png" for i in range(len(features))]
    return refitted(colours(), features, labels, CLASSES, names)[0].data


def none(truth: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(truth), dtype=torch.bool)


def test_correcting_many_wrong_labels_is_shown_to_help() -> None:
    features, truth = cloud()
    data = run(features, Labels(moved(truth, 0.4), truth, none(truth)))
    assert data["n_changed"] == 48
    assert data["difference"]["real"]
    assert data["difference"]["value"] > 0.03
    assert data["sentence"].startswith("The decisions helped: ")
    assert data["won"] - data["lost"] == round(data["difference"]["value"] * data["n"])
    assert sum(r["won"] for r in data["classes"]) == data["won"]


def test_making_labels_wrong_is_said_to_be_worse() -> None:
    features, truth = cloud()
    data = run(features, Labels(truth, moved(truth, 0.4), none(truth)))
    assert data["difference"]["value"] < 0 or not data["difference"]["real"]
    assert not data["sentence"].startswith("The decisions helped")


def test_a_label_that_only_counts_as_right_again_is_no_gain() -> None:
    """One label of very separate classes: neither fit changes, so nothing may be gained."""
    features, truth = cloud(gap=12)
    before = truth.clone()
    before[0] = 1
    data = run(features, Labels(before, truth, none(truth)))
    assert data["before"]["value"] == data["after"]["value"] == 1.0
    assert data["sentence"].startswith("No gain is shown: ")
    assert data["changed"] == []


def test_what_was_left_out_is_neither_learnt_from_nor_tested_on() -> None:
    features, truth = cloud()
    dropped = none(truth)
    dropped[:6] = True
    data = run(features, Labels(truth, truth, dropped))
    assert data["n"] == len(truth) - 6
    assert data["n_changed"] == 6


def test_a_prediction_is_by_a_fit_without_the_picture_and_those_that_look_alike() -> None:
    """A picture twice: were one learnt from when the other is tested, its absurd label would be predicted."""
    features, truth = cloud(gap=12)
    odd = features[:1].repeat(2, 1)
    everything = torch.cat([features, odd])
    given = torch.cat([truth, torch.tensor([2, 2])])
    after = given.clone()
    after[1] = (after[1] + 1) % 3
    tested, _ = refitted(
        colours(), everything, Labels(given, after, none(given)), CLASSES, [str(i) for i in range(len(given))]
    )
    assert tested.data["n_groups"] <= len(given) - 2
    assert tested.data["before"]["value"] < 1.0


def test_the_kept_classifiers_are_those_that_were_tested() -> None:
    features, truth = cloud()
    wrong = moved(truth, 0.4)
    dropped = none(truth)
    dropped[:6] = True
    found, fits = refitted(
        colours(), features, Labels(wrong, truth, dropped), CLASSES, [str(i) for i in range(len(truth))]
    )
    assert found.data["changed"]
    for row in found.data["changed"]:
        i = row["index"]
        for side, name in enumerate(("before", "after")):
            model = fits.classifier(side, i)
            assert CLASSES[int(model.head(features[i : i + 1]).argmax())] == row[name]
            assert model.bank is model.held_out is None, "no picture is kept"
            near = fits.alike(side, i, lambda part: features[part])
            assert len(near) == 5
            assert all(int(fits.folds[side, k]) != int(fits.folds[side, i]) for k in near)
            unit = torch.nn.functional.normalize(features.sqrt(), dim=1)
            cosine = unit @ unit[i]
            held = (fits.folds[side] == fits.folds[side, i]) | (fits.learnt[side] < 0)
            assert near == cosine.masked_fill(held, -1).topk(5).indices.tolist()
    assert (fits.learnt[0] == wrong).all()
    assert (fits.learnt[1][:6] == -1).all()
    assert (fits.learnt[1][6:] == truth[6:]).all()


def test_trust_of_each_side_is_measured_on_the_compared_pictures_with_their_labels_of_now() -> None:
    features, truth = cloud()
    dropped = none(truth)
    dropped[:6] = True
    before = moved(truth, 0.4)
    names = [f"{i}.png" for i in range(120)]
    found, fits = refitted(colours(), features, Labels(before, truth, dropped), CLASSES, names)
    for side, name in enumerate(("before", "after")):
        trust = fits.classifier(side, 50).measured_trust
        assert trust is not None
        assert torch.equal(trust.held.labels, truth[6:]), "not those that were corrected or left out"
        assert float(trust.held.right.float().mean()) == pytest.approx(found.data[name]["value"], abs=1e-4)
    assert fits.trusts[0].held.right.sum() < fits.trusts[1].held.right.sum()


def test_trust_of_too_few_pictures_is_said_to_be_missing() -> None:
    features, truth = cloud(n=2)
    fits = refitted(colours(), features, Labels(moved(truth, 0.2), truth, none(truth)), CLASSES, [*map(str, range(6))])[
        1
    ]
    made = fits.classifier(0, 0)
    assert made.trust is None
    assert str(why_unmeasured(made)).startswith("only 6 pictures are held out")


def test_decisions_are_applied_as_they_stand() -> None:
    decided = {
        "a": {"decision": "changed", "label": "sky", "given": "moss"},
        "b": {"decision": "kept", "label": "rust", "given": "rust"},
        "c": {"decision": "left_out", "label": "", "given": "sky"},
        "d": {"decision": "postponed", "label": "", "given": "moss"},
        "e": {"decision": "changed", "label": "sky", "given": "rust"},  # the data say moss now
    }
    labels = Labels.of(["moss", "rust", "sky", "moss", "moss", ""], [*"abcdef"], decided, CLASSES)
    assert labels.before.tolist() == [0, 1, 2, 0, 0, -1]
    assert labels.after.tolist() == [2, 1, 2, 0, 0, -1]
    assert labels.dropped.tolist() == [False, False, True, False, False, False]
    assert labels.n_changed == 2
    left_out = Labels.of(["moss", ""], ["a", "b"], {"b": {"decision": "left_out", "label": "", "given": ""}}, CLASSES)
    assert left_out.n_changed == 0, "a picture without a label was not learnt from"


def test_without_a_decision_there_is_nothing_to_compare() -> None:
    features, truth = cloud(4)
    with pytest.raises(
        DataError, match=r"No label was changed and no picture was left out\. Change a label, or leave a picture out"
    ):
        run(features, Labels(truth, truth, none(truth)))


def test_one_class_is_refused() -> None:
    features, truth = cloud(4)
    with pytest.raises(DataError, match="At least two classes must have 2 labelled pictures"):
        run(features, Labels(truth, torch.zeros_like(truth), none(truth)))


def test_classes_that_look_alike_throughout_cannot_be_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    features, truth = cloud()

    def by_class(*given: Any) -> Grouping:
        return replace(group_by_looks(*given), groups=truth % 2)

    monkeypatch.setattr("seewhy.studies.refit.group_by_looks", by_class)
    with pytest.raises(DataError, match="At least two classes must have pictures of several objects"):
        run(features, Labels(1 - truth % 2, truth % 2, none(truth)))


def test_the_page_says_what_was_compared() -> None:
    features, truth = cloud()
    data = run(features, Labels(moved(truth, 0.4), truth, none(truth)))
    document = page(data)
    assert document.headline == "The decisions helped."
    (table,) = document.blocks[1].blocks  # type: ignore[union-attr]
    assert table.columns == ("class", "pictures", "right before", "right after", "won", "lost")  # type: ignore[union-attr]
    for _, n, before, after, won, lost in table.rows:  # type: ignore[union-attr]
        assert after - before == won - lost
        assert 0 <= before <= n
    titles = [s.title for s in document.blocks]
    assert titles[:3] == ["Before and after", "Classes that won and lost", "Pictures whose prediction changed"]
    assert sentence({**data, "difference": {"value": -0.1, "interval": [-0.2, -0.01], "real": True}}).startswith(
        "The decisions made it worse: "
    )


def test_a_decision_holds_for_all_copies_of_a_picture_as_in_the_corrected_table() -> None:
    decided = {
        "a": {"decision": "changed", "given": "rust", "label": "sky"},
        "b": {"decision": "changed", "given": "old", "label": "sky"},
        "c": {"decision": "left_out", "given": "moss", "label": "moss"},
    }
    names, keys = ["moss", "rust", "moss", "moss", "moss"], ["a", "a", "b", "c", "d"]
    labels = Labels.of(names, keys, decided, ("moss", "rust", "sky"))
    assert labels.after.tolist() == [2, 2, 0, 0, 0], "both copies of a; a label that b no longer has is ignored"
    assert labels.dropped.tolist() == [False, False, False, True, False]
    assert labels.n_changed == 3
