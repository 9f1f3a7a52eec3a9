"""Adapting with every objective over pairs, in every form; each gets the texts, labels and parts it wants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from seewhy.encoders.names import own_vectors
from seewhy.errors import InputError
from seewhy.learning.adapt import Adapt, Adapted
from seewhy.learning.objectives import Contrastive, objectives
from seewhy.learning.pooled import PooledPairs, encode_pairs, findings, spanned
from seewhy.pictures.samples import Sample
from seewhy.progress import Progress
from seewhy.training.loop import train
from tiny import picture
from tiny_words import tiny_pair

LABELS = ("moss", "rust", "sky", "sand")
PAIRS = {name: issubclass(objectives[name], Contrastive) and objectives[name].plain_pairs for name in objectives}
EACH = [name for name, able in PAIRS.items() if able]


class Hearing(Progress):
    """Keeps notes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    """Textures with reports of two sentences."""
    root, found = tmp_path_factory.mktemp("reports"), []
    for label in LABELS:
        for i in range(4):
            Image.fromarray(picture(label, i)).save(root / f"{label}{i}.png")
            texts = (f"There is {label} number {i}. Nothing else of {label}.", f"some {label} {i}")
            found.append(Sample(str(root / f"{label}{i}.png"), label, texts))
    return tuple(found)


def adapted(items: tuple[Sample, ...], name: str, form: Any = "heads", **more: Any) -> tuple[Adapted, list[str]]:
    heard = Hearing()
    how = Adapt(name, form, **{"keep": 1.0, "epochs": 3, "batch_size": 8, "width": 8, "lr": 1e-2, **more})
    return how.fit(tiny_pair(), items, progress=heard), heard.notes


def seen(items: tuple[Sample, ...]) -> PooledPairs:
    return encode_pairs(tiny_pair(), items, None, Progress())


@pytest.mark.parametrize("form", ["heads", "image", "text", "towers"])
@pytest.mark.parametrize("name", EACH)
def test_every_objective_over_pairs_trains(name: str, form: str, items: tuple[Sample, ...]) -> None:
    done, notes = adapted(items, name, form, micro_batch=3)
    assert all(torch.isfinite(torch.tensor([*step.values()])).all() for step in done.done.history)
    changed = {part.partition(".")[0] for part in done.adaptation.trained.delta(tiny_pair())}
    assert changed >= {"heads": set(), "image": {"trunk"}, "text": {"words"}, "towers": {"trunk", "words"}}[form]
    assert ("words" in changed) == (form in ("text", "towers"))
    whole = [note for note in notes if "does not compare regions with words here" in note]
    assert bool(whole) == (form == "heads" and hasattr(objectives[name], "local"))


@pytest.mark.parametrize("name", [name for name, able in PAIRS.items() if not able])
def test_who_needs_more_than_pairs_is_refused_with_what_it_needs(name: str) -> None:
    options = objectives[name].options
    instead = f"give seewhy adapt {options}" if options else "use seewhy pretrain"
    with pytest.raises(InputError) as caught:
        Adapt(name)
    assert str(caught.value) == (
        f"`objective` must accept pictures with texts, got {name!r}, which needs {objectives[name].needs}. Use one of "
        f"{', '.join(EACH)}, or {instead}."
    )


def test_sentences_are_what_is_trained_on_and_texts_what_is_chosen_on(items: tuple[Sample, ...]) -> None:
    done, _ = adapted(items, "convirt")
    assert set(done.train.texts) == {
        said for item in done.train.items for t in item.texts for said in t.replace(". ", ".|").split("|")
    }
    assert set(done.held.texts) == {t for item in done.held.items for t in item.texts}
    plain, _ = adapted(items, "clip")
    assert set(plain.train.texts) == {t for item in plain.train.items for t in item.texts}


def test_sentences_keep_their_pictures(items: tuple[Sample, ...]) -> None:
    before = seen(items)
    after = spanned(tiny_pair(), before, "both", None, Progress())
    for i, (item, texts) in enumerate(zip(after.items, after.choices, strict=True)):
        first, rest = item.texts
        parts = [first, *first.replace(". ", ".|").split("|"), rest]
        assert [after.texts[j] for j in texts] == parts, i
    torch.testing.assert_close(after.sentences, own_vectors(tiny_pair().text, after.texts))
    assert spanned(tiny_pair(), before, "text", None, Progress()) is before


@pytest.mark.parametrize("form", ["heads", "towers"])
def test_several_texts_of_a_picture_are_drawn_at_once(form: Any, items: tuple[Sample, ...]) -> None:
    on, how = tiny_pair(), Adapt("dreamlip", form, width=8)
    _, task, data = how.prepared(on, spanned(on, seen(items), "both", None, Progress()), Progress())
    batch = data.batch(0, 5, 0)
    assert all(one.shape[:2] == (5, 6) for one in batch["text"])
    features: Any = task.features(batch)
    assert features[-1].shape[:2] == (5, 6)
    assert torch.isfinite(task.loss(features, batch)["loss"])


def test_findings_are_labels(items: tuple[Sample, ...]) -> None:
    several = (replace(items[0], label="moss | rust"), *items[1:])
    found = findings(seen(several))
    assert found is not None
    assert found[0].tolist() == [1, 1, 0, 0]
    assert found[-1].tolist() == [0, 0, 1, 0]
    assert findings(seen((replace(items[0], label=""), *items[1:]))) is None


@pytest.mark.parametrize("form", ["heads", "towers"])
def test_medclip_learns_from_labels_where_all_have_one(form: Any, items: tuple[Sample, ...]) -> None:
    losses, told = [], []
    for label in (None, ""):
        given = items if label is None else (replace(items[0], label=label), *items[1:])
        heard, on = Hearing(), tiny_pair()
        _, task, data = Adapt("medclip", form, width=8).prepared(on, seen(given), heard)
        batch = data.batch(0, 8, 0)
        losses.append(float(task.loss(task.features(batch), batch)["loss"].detach()))
        told.append([note for note in heard.notes if "uses no classes or findings" in note])
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
    assert told == [[], ["medclip uses no classes or findings, because some pictures have none"]]


def test_a_half_that_is_not_trained_stays_still(items: tuple[Sample, ...]) -> None:
    on = tiny_pair()
    _, task, data = Adapt("gloria", "text").prepared(on, seen(items), Progress())
    task.train()
    assert not task.image.training  # type: ignore[union-attr]
    assert all(name.startswith("text.") for name, p in task.named_parameters() if p.requires_grad)
    own = on.trunk.state_dict()
    before = {name: value.clone() for name, value in own.items()}
    train(task, data, Adapt("gloria", "text", epochs=1).training(data, on))
    assert all(torch.equal(value, before[name]) for name, value in own.items())
