"""Before and behind projection heads: what is trained, what is compared, what is said to be lost."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seewhy.classifiers.linear.recipe import Linear
from seewhy.encoders.find import encoder
from seewhy.errors import DataError, InputError
from seewhy.pictures.samples import Sample, Samples, gathered
from seewhy.studies.transfer import TransferStudy
from tiny import picture

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproductions"))

from projection_head_study import ProjectionHeadStudy, kept_and_lost

PROBES = TransferStudy(
    shots=(2,), parts=(), n_seeds=2, n_corrupted=0, recipe=Linear(n_crops=0, split="random"), held_out=0.3
)
STUDY = ProjectionHeadStudy(heads=("none", "fixed"), epochs=1, batch_size=6, augmentation="crops", probes=PROBES)


def drawn(n: int, labels: tuple[str, ...] = ("moss", "rust")) -> Samples:
    return gathered([Sample(f"{k} {i}", k, pixels=picture(k, i, 16)) for k in labels for i in range(n)])


@pytest.mark.slow
def test_each_head_is_probed_before_and_behind(tmp_path: Path) -> None:
    start = encoder("new:resnet/16", engine="torch")
    found = STUDY.run(start, drawn(6), tmp_path)
    assert [e["name"] for e in found.data["encoders"]] == ["start", "none", "before fixed", "behind fixed"]
    assert len({e["fingerprint"] for e in found.data["encoders"]}) == 4
    compared = [(d["a"], d["b"]) for d in found.data["measures"][0]["differences"]]
    assert compared == [("before fixed", "behind fixed"), ("before fixed", "none")]
    assert found.data["settings"]["n_compared"] == 2 * len(found.data["measures"])
    assert found.data["n_test"] == 4
    assert "Behind the fixed head" in found.sentence
    rows = (tmp_path / "progress.jsonl").read_text()
    again = STUDY.run(start, drawn(6), tmp_path)
    assert (tmp_path / "progress.jsonl").read_text() == rows  # trained to the same weights, measured nothing anew
    assert again.data["measures"] == found.data["measures"]


def test_what_is_lost_is_really_better_before() -> None:
    def one(measure: str, better: str | None) -> dict[str, object]:
        names = {"a": "before mlp", "b": "behind mlp"}
        others = {"a": "before mlp", "b": "none", "better": "before mlp"}
        return {"measure": measure, "differences": [{**names, "better": better}, others]}

    found = kept_and_lost([one("x", "before mlp"), one("y", "behind mlp"), one("z", None)], "mlp")
    assert found == {"head": "mlp", "lost": ["x"], "gained": ["y"], "n_compared": 3}


def test_heads_and_objectives_that_are_none() -> None:
    with pytest.raises(InputError, match="'none', 'linear', 'mlp', 'fixed', each once"):
        replace(STUDY, heads=("mlp", "mlp"))
    with pytest.raises(InputError, match="must learn from pictures only, got 'clip'"):
        replace(STUDY, objective="clip")


def test_one_class_is_refused_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("it was trained"))
    start = encoder("new:resnet/16", engine="torch")
    with pytest.raises(
        DataError,
        match=(
            r"At least two classes must have readable pictures, got 1\. Put the pictures of each "
            r"class into one folder\."
        ),
    ):
        STUDY.run(start, drawn(6, ("moss",)))
    with pytest.raises(DataError, match=r"at least 2 training pictures, and 2 class\(es\) have fewer: moss, rust"):
        STUDY.run(start, drawn(1))
