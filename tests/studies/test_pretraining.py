"""What is told of held-out pictures before and after: votes and probes by hand, and which pictures are counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from seewhy.classifiers.encoded_set import EncodedSet
from seewhy.encoders.stream import Encoded
from seewhy.learning.pretrain import Pretrain
from seewhy.pictures.samples import Sample, load_pictures
from seewhy.studies import adapting
from seewhy.studies.adapting import measure_pretraining, neighbours, probe
from tiny import class_folders, tiny_cnn


def test_votes_are_weighed_by_nearness_and_lengths_do_not_count() -> None:
    known = torch.tensor([[0.1, 0.0], [0.0, 9.0], [0.5, 9.0]])
    labels = torch.tensor([0, 1, 1])
    assert neighbours(known, labels, torch.tensor([[1.0, 0.1], [0.2, 5.0]]), 2).tolist() == [0, 1]
    assert neighbours(known, labels, torch.tensor([[8.0, 6.0]]), 2, k=1).tolist() == [0]


def test_a_probe_takes_the_strength_that_tells_others_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """So weak that it says the larger class of everything, or strong enough."""
    x = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 7.0, 7.1, 7.2])[:, None] + 1000
    y = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1])
    inner = torch.tensor([False, True, False, False, True, False, False, True, True])
    monkeypatch.setattr(adapting, "CS", (1e-6, 1e-6, 10.0))
    asked = torch.tensor([[1000.0], [1009.0]])
    assert probe(x, y, asked, 2, inner).tolist() == [0, 1]
    monkeypatch.setattr(adapting, "CS", (10.0, 1e-6, 10.0))
    weak = probe(x, y, asked, 2, torch.zeros(9).bool())
    assert weak.tolist() == [0, 0], "where none can be asked, the second"


def test_after_is_of_the_encoder_that_is_given_and_before_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = load_pictures(class_folders(tmp_path / "all", 8))
    held = [Sample(s.image, s.label, group=s.label) for s in samples.items[::4]]
    odd = Sample(samples.items[0].image, "strange")
    own = [s for i, s in enumerate(samples.items) if i % 4]
    how = Pretrain("supcon", epochs=1, batch_size=8, augmentation="crops", projection_width=4)
    done = how.fit(tiny_cnn(), own, validation=[*held, odd])
    blind = tiny_cnn()
    for p in blind.trunk.parameters():
        p.data.zero_()
    report = measure_pretraining(done, blind)
    most = max(Counter(s.label for s in held).values()) / len(held)
    for row in report.data["measures"]:
        assert row["n"] == len(held), "what has a class of its own is not counted"
        assert row["before"] > 0.6
        assert row["after"] <= most
    assert (report.data["n_pictures"], report.data["n_held_out"]) == (len(own), len(held) + 1)
    assert report.data["encoder"] == blind.describe()
    monkeypatch.setattr(adapting, "MOST", 10)
    assert measure_pretraining(done, blind).data["measures"][0]["measure"] == f"class by {len(own[::2])} neighbours"


def test_nothing_is_fitted_on_held_out_pictures() -> None:
    """What is learnt says the opposite of what is held out, so whoever learns from that is right."""

    def seen(n: int, begin: float) -> EncodedSet:
        kinds = [i % 2 for i in range(n)]
        items = tuple(Sample(f"{begin} {i}.png", "ab"[kind]) for i, kind in enumerate(kinds))
        places = torch.tensor([[begin + (1 - 2 * begin) * kind, 1.0 + i / 100] for i, kind in enumerate(kinds)])
        encoded = [Encoded(item.image, item.image, one[None]) for item, one in zip(items, places, strict=True)]
        return EncodedSet(items, encoded)

    told = adapting._right(seen(30, 0.0), seen(10, 1.0), ["a", "b"], 0)
    assert len(told) == 2
    for name, right in told.items():
        assert right[:, 0].sum() == 0, name
        assert right[:, 1].sum() == 10
