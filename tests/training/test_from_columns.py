"""A table's columns teach an encoder: through the verb, and what cannot be learnt from is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from typer.testing import CliRunner

from killing import content
from schemas import check
from seewhy.cli import app
from seewhy.cli.training_runs import Watched
from seewhy.encoders.adapted import open_adaptation
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.errors import ModelError
from seewhy.objectives import objectives
from seewhy.training.from_columns import ByClassesAndCaptions, ByInstructions, FromColumns, needs
from tiny import picture, tiny_cnn
from tiny_words import opened

ASKED = ("--objective", "focallens", "--instruction", "kind=the kind", "--instruction", "kind=what?")
NAMED = ("--objective", "prefix", "--label-column", "kind", "--text-column", "title")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Textures of a kind and a title; the first has no title, the last no kind."""
    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda name, engine: opened())
    rows = []
    for label in ("moss", "rust"):
        for i in range(6):
            Image.fromarray(picture(label, i)).save(tmp_path / f"{label}{i}.png")
            rows.append({"image": f"{label}{i}.png", "kind": label, "title": f"some {label} {i}", "same": "one"})
    rows[0]["title"], rows[-1]["kind"] = "", ""
    with open(tmp_path / "table.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "table.csv"


def adapt(table: Path, *words: str, name: str = "enc") -> Any:
    """What the verb prints, or what it is stopped by."""
    given = ["adapt", str(table), "-o", str(table.parent / name), "--store", "none", "--json", "--quiet", *words]
    done = CliRunner().invoke(app, given)
    return json.loads(done.stdout) if done.exit_code == 0 else done.exception


@pytest.mark.parametrize("words", [ASKED, NAMED])
def test_the_verb_trains_measures_and_saves(words: tuple[str, ...], table: Path) -> None:
    told = adapt(table, *words, "--epochs", "3", "--lr", "0.02", "--keep", "0.5")
    check("adapt", [told])
    n = 11 if words == ASKED else 12  # a picture without an answer is of no use, one without a class has a title
    assert (told["n_pictures"], told["n_held_out"], told["keep"]) == (n, 2, 0.5)
    assert sorted(f.name for f in (table.parent / "enc").iterdir())[1:3] == ["log.csv", "run.json"]
    history = json.loads((table.parent / "enc" / "run.json").read_text("utf-8"))["history"]
    assert len((table.parent / "enc" / "log.csv").read_text("utf-8").splitlines()) == 1 + len(history)
    kept = open_adaptation(table.parent / "enc", base=opened())
    assert (kept.keep, len(kept.trained_on)) == (0.5, n - 2)
    assert kept.provenance.get("instructions") == ([["the kind", "what?"]] if words == ASKED else None)
    focus = "the kind" if words == ASKED else "class"
    assert kept.encoder().under(focus).name.endswith(focus)


def test_what_is_held_out_is_named_by_the_nearest_value(table: Path) -> None:
    done = ByInstructions({"kind": ["the kind"]}).fit(opened(), table)
    ((measure, (items, before, after)),) = done.named.items()
    assert measure == "kind under 'the kind'"
    under, words = done.adaptation.encoder().under("the kind"), ["moss", "rust"]
    for encoder, hits in ((opened(), before), (under, after)):
        stream = encode_stream(encoder, [item.image for item in items])
        pooled = torch.cat([seen.pooled for seen in stream if isinstance(seen, Encoded)])
        nearest = (normalize(encoder.text.project(pooled), dim=1) @ encoder.encode_text(words).T).argmax(1).tolist()
        assert hits.tolist() == [[float(words[n] in item.image), 1] for n, item in zip(nearest, items, strict=True)]


class Stopped(Exception):
    pass


def test_a_run_that_was_stopped_goes_on(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often = ("--epochs", "60", "--batch-size", "64")
    adapt(table, *ASKED, *often, name="whole")
    heard: list[int] = []

    def stop(self: Watched, step: int, terms: Mapping[str, float]) -> None:
        heard.append(step)
        if len(heard) == 55:
            raise Stopped

    monkeypatch.setattr(Watched, "measured", stop)
    assert isinstance(adapt(table, *ASKED, *often), Stopped)
    adapt(table, *ASKED, *often)
    assert heard[55:] == list(range(51, 61))
    whole, cut = (content(table.parent / name) for name in ("whole", "enc"))
    assert [n for n in whole if n.endswith(".safetensors")] == [n for n in cut if n.endswith(".safetensors")]
    assert not (table.parent / ".enc.checkpoint").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (ASKED[:2], needs(objectives["focallens"])),  # type: ignore[type-abstract]
        (NAMED[:2], needs(objectives["prefix"])),  # type: ignore[type-abstract]
        (
            (*ASKED[:2], "--instruction", "kind"),
            "--instruction was given 'kind'. COLUMN=WORDS was expected. For example: colour='the colour'",
        ),
        (
            (*ASKED, "--train", "heads"),
            "--train was given with the objective 'focallens', which has no use for it. An objective that has, or none "
            "of it, was expected. Drop it, or take another objective.",
        ),
        (
            ASKED[2:],
            "--instruction was given with the objective 'clip', which has no use for it. An objective that has, or "
            "none of it, was expected. Drop it, or take another objective.",
        ),
        (
            (*ASKED, "--instruction", "same=x"),
            "The column for 'same' has 1 value in the pictures to train on: 'one'. Two or more were expected, as one "
            "is learnt by being told from others. Name another column, or give more pictures.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(words: tuple[str, ...], said: str, table: Path) -> None:
    assert str(adapt(table, *words)) == said
    assert not (table.parent / "enc").exists()


def test_a_column_that_is_not_there_is_refused(table: Path) -> None:
    assert "has no column 'kin'. Did you mean 'kind'?" in str(adapt(table, *ASKED, "--instruction", "kin=x"))
    assert str(adapt(table.parent, *ASKED)) == (
        f"{table.parent} has no columns. A table, or shards with JSON, was expected, with a row per picture and the "
        "columns kind. Give one."
    )


@pytest.mark.parametrize("how", [ByInstructions({"kind": ["x"]}), ByClassesAndCaptions("kind")])
def test_an_encoder_without_words_is_refused_before_anything_is_read(
    how: FromColumns, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tiny_cnn()
    monkeypatch.setattr(silent, "_text", None)
    with pytest.raises(ModelError, match="has no text half"):
        how.fit(silent, "not-there.csv")


def test_the_refusal_names_the_options() -> None:
    for name, option in (("focallens", "--instruction COLUMN=WORDS"), ("prefix", "--label-column COLUMN")):
        assert option in needs(objectives[name])  # type: ignore[type-abstract]
