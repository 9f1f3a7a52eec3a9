"""Adapting: pairs find one another, what is kept is chosen as it says, a stopped run ends as a whole one does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.encoders.base import Encoder
from seewhy.encoders.names import names_of
from seewhy.errors import DataError, InputError, ModelError
from seewhy.learning.adapt import KEEPS, Adapt, Kept, agrees
from seewhy.learning.contrast import ranks
from seewhy.learning.encoders.heads import PairedHeads
from seewhy.learning.pooled import encode_pairs
from seewhy.learning.way import choose, estimate
from seewhy.pictures.pairs import load_pairs
from seewhy.pictures.samples import Sample, Samples
from seewhy.progress import Progress
from seewhy.storage.features import FeatureStore
from seewhy.training.loop import Trained
from tiny import picture, tiny_cnn
from tiny_words import tiny_pair

LABELS = ("moss", "rust", "sky", "sand")


def pairs(root: Path, n: int = 6) -> Samples:
    """Textures, two texts each."""
    root.mkdir(exist_ok=True)
    rows = []
    for label in LABELS:
        for i in range(n):
            Image.fromarray(picture(label, i)).save(root / f"{label}{i}.png")
            rows.append({"image": f"{label}{i}.png", "text": [f"some {label} here {i}", f"number {i} of {label}"]})
    (root / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load_pairs(root / "pairs.jsonl")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return pairs(tmp_path_factory.mktemp("pairs"))


def quick(**settings: object) -> Adapt:
    return Adapt(**{"epochs": 40, "batch_size": 12, "width": 8, "lr": 1e-2, "held_out": 0.2, **settings})  # type: ignore[arg-type]


def test_ranks_by_hand() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    text = torch.tensor([[1.0, 0.1], [0.0, 1.0], [1.0, 0.9], [0.9, 0.0]])
    found = ranks(image, text, torch.tensor([0, 1, 2, 1]))
    # Text 3 is of picture 1, which is the farthest from it; picture 0's own text is beaten by text 3 alone.
    assert found.text_to_image.tolist() == [0, 0, 0, 2]
    assert found.image_to_text.tolist() == [1, 0, 0]
    assert found.recall(1) == (pytest.approx(2 / 3), 0.75)


def test_vectors_that_are_all_the_same_find_nothing() -> None:
    found = ranks(torch.ones(5, 3), torch.ones(5, 3), torch.arange(5))
    assert found.recall(1) == (0.0, 0.0)


def test_heads_learn_and_towers_stay(samples: Samples) -> None:
    on = tiny_pair()
    weights = {n: t.clone() for n, t in on.trunk.state_dict().items()}
    done = quick(keep=1.0).fit(on, samples.items)
    assert done.done.history[-1]["loss"] < 0.7 * done.done.history[0]["loss"]
    assert all(torch.equal(t, weights[n]) for n, t in on.trunk.state_dict().items())
    seen = encode_pairs(on, done.train.items, None, Progress())
    assert torch.equal(seen.pooled, done.train.pooled)
    facts = dict(done.adaptation.provenance)
    assert (facts["n_pictures"], facts["n_chosen_on"], facts["n_steps"]) == (19, 5, 40)


@pytest.mark.parametrize("form", ["image", "text", "towers"])
def test_towers_learn_alone_or_together(form: str, samples: Samples) -> None:
    on = tiny_pair()
    done = quick(train=form, keep=1.0, epochs=6, micro_batch=5).fit(on, samples.items)
    assert done.done.history[-1]["loss"] < done.done.history[0]["loss"]
    changed = {name.partition(".")[0] for name in done.adaptation.trained.delta(on)}
    expected = {"image": {"trunk", "projection"}, "text": {"words"}, "towers": {"trunk", "projection", "words"}}
    assert changed == expected[form]


def test_what_is_kept_is_chosen_by_gain_and_by_what_it_costs(samples: Samples) -> None:
    for forget in (0.0, 1.0):
        done = quick(may_forget=forget).fit(tiny_pair(), samples.items)
        assert [k.keep for k in done.tried] == [0.0, *KEEPS]
        allowed = [k for k in done.tried if k.named >= done.tried[0].named - forget]  # type: ignore[operator]
        assert done.adaptation.keep == max(allowed, key=lambda k: k.gain).keep
    words = [Kept(0.0, 0.1, 0.3, None), Kept(0.5, 0.2, 0.3, None)]
    assert (choose(words, 0.0).keep, words[1].gain) == (0.5, 0.25)
    before, little, much = Kept(0.0, 0.2, 0.2, 0.8), Kept(0.3, 0.4, 0.4, 0.76), Kept(1.0, 0.6, 0.6, 0.5)
    assert [choose([before, little, much], cost).keep for cost in (0.03, 0.05, 0.29, 0.3)] == [0.0, 0.3, 0.3, 1.0]
    asked = quick(keep=0.3).fit(tiny_pair(), samples.items)
    assert [k.keep for k in asked.tried] == [0.0, 0.3]
    assert asked.adaptation.keep == 0.3


def test_what_is_chosen_on_is_not_measured_on(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    progress, few = Progress(), 5
    alike = quick().fit(tiny_pair(), samples.items, progress=progress)
    assert alike.held.digests == alike.chosen_on.digests
    assert any(note.startswith(f"keep is chosen and evaluated on the same {few} held-out") for note in progress.notes)
    monkeypatch.setattr("seewhy.learning.way.N_APART", few)
    apart = quick().fit(tiny_pair(), samples.items, progress=(told := Progress()))
    assert sorted({*apart.held.digests, *apart.chosen_on.digests}) == sorted(alike.held.digests)
    assert not {*apart.held.digests} & {*apart.chosen_on.digests}
    assert not any("flatters" in note for note in told.notes)
    facts = dict(apart.adaptation.provenance)
    assert (facts["n_chosen_on"], facts["n_measured_on"]) == (len(apart.chosen_on), len(apart.held))
    again = quick(keep=apart.adaptation.keep).fit(tiny_pair(), samples.items, validation=apart.chosen_on.items)
    assert again.tried[1].keep == apart.adaptation.keep
    asked = quick(keep=0.3).fit(tiny_pair(), samples.items)
    assert asked.held.digests == asked.chosen_on.digests


def test_what_is_tried_is_what_the_encoder_then_does(samples: Samples) -> None:
    done = quick(keep=0.4).fit(tiny_pair(), samples.items)
    seen = encode_pairs(done.encoder, done.held.items, None, Progress())
    image = done.encoder.text.project(seen.pooled)
    text = done.encoder.encode_text(seen.texts)[seen.pairs[:, 1]]
    both = ranks(image, text, seen.owner).recall(5)
    assert (round(both[0], 4), round(both[1], 4)) == (done.tried[-1].image_to_text, done.tried[-1].text_to_image)


def test_after_training_both_parts_of_a_picture_are_equally_long(samples: Samples) -> None:
    on = tiny_pair()
    done = quick(keep=0.5).fit(on, samples.items)
    heads = done.adaptation.trained
    assert isinstance(heads, PairedHeads)
    both = heads.image(on.text.project(done.train.pooled), 0.5)
    ratio = both[:, 8:].norm(dim=1) / both[:, :8].norm(dim=1)
    assert float(ratio.median()) == pytest.approx(1.0, abs=1e-5)


def test_the_first_weights_follow_from_the_seed(samples: Samples) -> None:
    seen = encode_pairs(tiny_pair(), samples.items, None, Progress())
    drawn = [quick(seed=s).prepared(tiny_pair(), seen, Progress())[0].state_dict() for s in (0, 0, 1)]
    assert torch.equal(drawn[0]["pictures.weight"], drawn[1]["pictures.weight"])
    assert not torch.equal(drawn[0]["pictures.weight"], drawn[2]["pictures.weight"])


def test_agreement_is_with_the_last_layer() -> None:
    on = tiny_cnn()
    pooled = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    heads = PairedHeads.before(on, 2)
    by_name = (on.text.project(pooled) @ on.encode_text([f"a photo of a {c}." for c in on.classes]).T).argmax(1)
    own = on.classifier(pooled).argmax(1)  # type: ignore[misc]
    assert torch.equal(agrees(heads, 0.0, on, pooled), by_name == own)  # type: ignore[arg-type]


def test_own_names_keep_their_place_and_what_is_chosen_by_is_other_names(samples: Samples) -> None:
    guarded, plain = (quick(keep=0.5, guard=guard).fit(tiny_pair(), samples.items) for guard in (True, False))
    on, heads = tiny_pair(), [done.adaptation.trained for done in (guarded, plain)]
    names = on.encode_text(names_of(on))
    kept, moved = (done.encoder.encode_text(names_of(on)) for done in (guarded, plain))
    assert all(isinstance(one, PairedHeads) for one in heads)
    assert kept[:, 8:].norm(dim=1).max() < moved[:, 8:].norm(dim=1).min()
    torch.testing.assert_close(moved[:, :8] * 2**0.5, names)
    assert (kept[:, :8] * names).sum(1).min() > (moved[:, :8] * names).sum(1).max()
    anew = heads[0].named_anew(on.text, 0.5)  # type: ignore[union-attr]
    assert (anew[:, 8:].norm(dim=1) >= kept[:, 8:].norm(dim=1) - 1e-6).all()
    assert not torch.allclose(anew, kept)
    assert ("heard" in heads[0].delta(on), "heard" in heads[1].delta(on)) == (True, False)  # type: ignore[union-attr]


def test_copies_are_held_out_together(tmp_path: Path) -> None:
    found = pairs(tmp_path / "a", 3)
    twins = [Sample(s.image, s.label, (f"again {i}",), s.group) for i, s in enumerate(found.items)]
    seen = encode_pairs(tiny_pair(), [*found.items, *twins], None, Progress())
    own, held = seen.split(0.3, seed=0)
    assert len(own) + len(held) == 24
    assert not set(own.digests) & set(held.digests)
    assert sorted(own.pairs[:, 0].unique().tolist()) == list(range(len(own)))
    assert {own.texts[t] for p, t in own.pairs.tolist() if p == 0} == set(own.items[0].texts)


def test_groups_are_held_out_together(samples: Samples) -> None:
    grouped = [Sample(s.image, "", s.texts, group=f"{i % 6}") for i, s in enumerate(samples.items)]
    own, held = encode_pairs(tiny_pair(), grouped, None, Progress()).split(0.3, seed=0)
    assert not {i.group for i in own.items} & {i.group for i in held.items}
    assert len(held) == 8


def test_shared_pictures_are_named(samples: Samples) -> None:
    progress = Progress()
    quick(keep=1.0, epochs=1).fit(tiny_pair(), samples.items, validation=samples.items[:3], progress=progress)
    said = [note for note in progress.notes if "biases" in note]
    assert len(said) == 1
    assert said[0].startswith("3 picture(s) are in both the training and the validation data")
    assert said[0].endswith(f": {samples.items[0].image} is {samples.items[0].image}")


def test_a_stopped_run_ends_where_a_whole_one_does(samples: Samples, tmp_path: Path) -> None:
    whole = quick(keep=0.5, epochs=6).fit(tiny_pair(), samples.items)

    class Stop(Progress):
        def measured(self, step: int, terms: object) -> None:
            if step == 4:
                raise KeyboardInterrupt

    place = tmp_path / ".enc.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        quick(keep=0.5, epochs=6).fit(tiny_pair(), samples.items, checkpoint=place, progress=Stop())
    again = quick(keep=0.5, epochs=6).fit(tiny_pair(), samples.items, checkpoint=place)
    assert again.done.resumed_at == 4
    assert again.done.history == whole.done.history
    assert again.encoder.fingerprint == whole.encoder.fingerprint


def test_another_seed_gives_another_head(samples: Samples) -> None:
    one, same, other = (
        quick(keep=1.0, epochs=2, seed=s).fit(tiny_pair(), samples.items).encoder.fingerprint for s in (0, 0, 1)
    )
    assert one == same != other


def test_texts_are_read_once(samples: Samples, tmp_path: Path) -> None:
    store, on = FeatureStore(tmp_path / "looks.sqlite"), tiny_cnn()
    first = encode_pairs(on, samples.items, store, Progress())
    n = on.text.n_encoded  # type: ignore[attr-defined]
    again = encode_pairs(on, samples.items, store, Progress())
    assert on.text.n_encoded == n  # type: ignore[attr-defined]
    assert torch.equal(first.sentences, again.sentences)


def test_a_broken_picture_is_named_and_the_others_are_used(tmp_path: Path) -> None:
    found = pairs(tmp_path / "a", 2)
    Path(found.items[0].image).write_bytes(b"no picture")
    progress = Progress()
    seen = encode_pairs(tiny_pair(), found.items, None, progress)
    assert len(seen) == 7
    assert [f.image for f in progress.failures] == [found.items[0].image]
    assert found.items[0].texts[0] not in seen.texts
    for item in found.items:
        Path(item.image).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"^None of the 8 pictures can be read. The first is .*moss0.png: is text"):
        encode_pairs(tiny_pair(), found.items, None, progress)


def test_a_text_that_is_longer_than_is_read_is_told(tmp_path: Path) -> None:
    found = pairs(tmp_path / "a", 1)
    long = Sample(found.items[1].image, "", ("word " * 10_000,))
    progress, on = Progress(), tiny_pair()
    on.text.n_cut = lambda texts: sum(len(t.split()) > 60 for t in texts)  # type: ignore[method-assign]
    encode_pairs(on, [found.items[0], long], None, progress)
    assert progress.notes == [
        f"1 text(s) are too long for the text encoder and are cut, for example the text of {long.image}"
    ]


def test_one_pair_is_told_so(samples: Samples) -> None:
    with pytest.raises(DataError, match=r"^Training needs at least 2 pictures, got 1 of 1 readable pictures\."):
        quick().fit(tiny_pair(), samples.items[:1], validation=samples.items[1:4])
    with pytest.raises(
        DataError, match=r"At least four different pictures with texts are required, got 3\. Give more pairs\."
    ):
        quick().fit(tiny_pair(), samples.items[:3])


def test_a_loss_that_is_no_number_is_told(samples: Samples) -> None:
    with pytest.raises(InputError, match=r"The loss is not finite at step \d+.*for example to a tenth"):
        quick(train="towers", lr=1e30, epochs=3).fit(tiny_pair(), samples.items)


def test_words_that_cannot_be_trained_are_told_before_anything_is_looked_at() -> None:
    with pytest.raises(ModelError, match=r"cannot be trained\..*train='heads'\.$"):
        quick(train="text").fit(tiny_cnn(), [Sample("nowhere.png", "", ("a",))])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"train": "all"}, r"must be 'heads', 'image', 'text' or 'towers', got 'all'"),
        ({"keep": 1.5}, r"must be a number from 0 to 1, got 1\.5"),
        ({"batch_size": 1}, r"must be a whole number of at least 2, got 1"),
        ({"held_out": 1.0}, r"must be a number above 0 and below 1, got 1"),
        ({"objective": "nothing"}, r"There is no objective called 'nothing'"),
    ],
)
def test_settings_that_cannot_be_are_told(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(Exception, match=says):
        Adapt(**wrong)  # type: ignore[arg-type]


def test_the_cost_counts_steps_and_weights(samples: Samples) -> None:
    cost = estimate(quick(keep=1.0), tiny_pair(), samples.items)
    assert (cost.n_pictures, cost.n_texts, cost.n_steps) == (24, 48, 40)  # a fifth is held out
    assert cost.n_weights == 2 * (8 * 8 + 8)
    assert cost.seconds > 0


def test_a_step_costs_by_the_size_of_its_batch(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.learning.way.N_LOOKED_AT", 4)
    monkeypatch.setattr("seewhy.learning.way.train", lambda *_: Trained((), 1.0, 0))
    cost = estimate(quick(keep=1.0), tiny_pair(), samples.items)
    assert cost.seconds_per_step == 3.0
    assert cost.seconds == pytest.approx(cost.seconds_looking + 3 * 40, abs=0.1)


def test_memory_of_pictures_in_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = [(rng.integers(0, 255, (20, 20, 3), np.uint8), f"thing {i}") for i in range(8)]
    done = quick(keep=1.0, epochs=1).fit(tiny_pair(), load_pairs(given).items)
    assert isinstance(done.encoder, Encoder)
    assert len(done.train) + len(done.held) == 8
