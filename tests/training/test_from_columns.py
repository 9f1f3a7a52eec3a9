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

import seewhy
from killing import content
from schemas import check
from seewhy.cli import app
from seewhy.cli.terminal import Terminal
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.errors import InputError, ModelError
from seewhy.learning.api import ByClassesAndCaptions, ByInstructions
from seewhy.learning.encoders.adapted import open_adaptation
from seewhy.learning.from_columns import AGREES, KEEPS, FromColumns, Right, needs
from seewhy.learning.objectives import objectives
from seewhy.learning.way import choose
from seewhy.progress import Progress
from seewhy.studies.adapting import run_report
from tiny import picture, tiny_cnn
from tiny_words import opened

ASKED = ("--objective", "focallens", "--instruction", "kind=the kind", "--instruction", "kind=what?")
NAMED = ("--objective", "prefix", "--column", "label=kind", "--column", "text=title")


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
    told = adapt(table, *words, "--epochs", "3", "--set", "lr=0.02", "--keep", "0.5")
    check("adapt", [told])
    n = 11 if words == ASKED else 12  # a picture without an answer is of no use, one without a class has a title
    run = told["run"]["provenance"]
    assert (run["n_pictures"], told["n_pictures"], run["keep"], run["keep_chosen"]) == (n - 2, 2, 0.5, False)
    assert sorted(f.name for f in (table.parent / "enc").iterdir())[1:4] == ["log.csv", "run.html", "run.json"]
    history = json.loads((table.parent / "enc" / "run.json").read_text("utf-8"))["run"]["history"]
    assert len((table.parent / "enc" / "log.csv").read_text("utf-8").splitlines()) == 1 + len(history)
    kept = open_adaptation(table.parent / "enc", base=opened())
    assert (kept.keep, len(kept.trained_on)) == (0.5, n - 2)
    assert kept.provenance.get("instructions") == ([["the kind", "what?"]] if words == ASKED else None)
    focus = "the kind" if words == ASKED else "class"
    assert kept.encoder().under(focus).name.endswith(focus)


def test_what_is_held_out_is_named_by_the_nearest_value(table: Path) -> None:
    how = ByInstructions({"kind": ["the kind"]}, keep=1.0)
    done = how.fit(opened(), how.read(table, {}, Progress()))
    (measure, judged), (agrees, _) = done.judged.items()
    assert (measure, agrees) == ("kind under 'the kind'", AGREES)
    under, words = done.adaptation.encoder().under("the kind"), ["moss", "rust"]
    for encoder, scores in ((opened(), judged.before), (under, judged.after)):
        stream = encode_stream(encoder, [item.image for item in judged.items])
        pooled = torch.cat([seen.pooled for seen in stream if isinstance(seen, Encoded)])
        nearest = (normalize(encoder.text.project(pooled), dim=1) @ encoder.encode_text(words).T).argmax(1).tolist()
        hits = [[float(words[n] in item.image), 1] for n, item in zip(nearest, judged.items, strict=True)]
        assert judged.right(scores).tolist() == hits


class Stopped(Exception):
    pass


def test_a_run_that_was_stopped_goes_on(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often = ("--epochs", "6", "--set", "batch_size=64")
    adapt(table, *ASKED, *often, name="whole")
    heard: list[int] = []

    def stop(self: Terminal, step: int, terms: Mapping[str, float]) -> None:
        heard.append(step)
        if len(heard) == 4:
            raise Stopped

    monkeypatch.setattr(Terminal, "measured", stop)
    assert isinstance(adapt(table, *ASKED, *often), Stopped)
    adapt(table, *ASKED, *often)
    assert heard == [1, 2, 3, 4, 5, 6], "what was done when it was stopped is kept"
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
            "--instruction must be COLUMN=WORDS, got 'kind'. For example: colour='the colour'",
        ),
        (
            (*ASKED, "--train", "heads"),
            ("--train has no effect with the objective 'focallens'. Remove it, or use another objective."),
        ),
        (
            ASKED[2:],
            ("--instruction has no effect with the objective 'clip'. Remove it, or use another objective."),
        ),
        (
            (*ASKED, "--instruction", "same=x"),
            (
                "The column for 'same' must have at least 2 different values in the training pictures, got 1 ('one'). "
                "Give another column, or add pictures."
            ),
        ),
    ],
)
def test_what_does_not_fit_is_refused(words: tuple[str, ...], said: str, table: Path) -> None:
    assert str(adapt(table, *words)) == said
    assert not (table.parent / "enc").exists()


def test_a_column_that_is_not_there_is_refused(table: Path) -> None:
    assert "has no column 'kin'. Did you mean 'kind'?" in str(adapt(table, *ASKED, "--instruction", "kin=x"))
    assert str(adapt(table.parent, *ASKED)) == (
        f"{table.parent} has no columns. Give a table, or shards with JSON, with one row per picture and the "
        "columns kind."
    )


@pytest.mark.parametrize("how", [ByInstructions({"kind": ["x"]}), ByClassesAndCaptions("kind")])
def test_an_encoder_without_words_is_refused_before_anything_is_looked_at(
    how: FromColumns, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tiny_cnn()
    monkeypatch.setattr(silent, "_text", None)
    with pytest.raises(ModelError, match="has no text encoder"):
        how.fit(silent, None)  # type: ignore[arg-type]


def test_the_refusal_names_the_options() -> None:
    for name, option in (("focallens", "--instruction COLUMN=WORDS"), ("prefix", "--column label=COLUMN")):
        assert option in needs(objectives[name])  # type: ignore[type-abstract]


@pytest.mark.parametrize("words", [ASKED, NAMED])
def test_a_dry_run_counts_and_writes_nothing(words: tuple[str, ...], table: Path) -> None:
    cost = adapt(table, *words, "--epochs", "3", "--set", "batch_size=4", "--dry-run")
    check("adapt", [cost])
    # 10 of 11 answers in batches of 4, three times; 10 of 11 classes and as many titles apart from one another.
    assert (cost["n_pictures"], cost["n_steps"]) == ((11, 6) if words == ASKED else (12, 12))
    assert cost["n_texts"] == (2 if words == ASKED else 13)
    assert cost["n_weights"] > 100
    assert not (table.parent / "enc").exists()
    validated = adapt(table, *words, "--epochs", "3", "--set", "batch_size=11", "--validation", str(table), "--dry-run")
    assert validated["n_steps"] == (3 if words == ASKED else 6)


@pytest.mark.parametrize("words", [ASKED, NAMED])
def test_what_is_validated_on_is_measured_on_and_pictures_on_both_sides_are_named(
    words: tuple[str, ...], table: Path
) -> None:
    rows = table.read_text("utf-8").splitlines()
    (table.parent / "own.csv").write_text("\n".join([*rows[:6], *rows[7:12]]), "utf-8")
    (table.parent / "held.csv").write_text("\n".join([rows[0], rows[2], rows[6], *rows[12:]]), "utf-8")
    held = str(table.parent / "held.csv")
    told = adapt(table.parent / "own.csv", *words, "--validation", held, "--keep", "1")
    assert told["n_pictures"] == (2 if words == ASKED else 3)
    both = table.parent / "moss1.png"
    assert (
        "1 picture(s) are in both the training and the validation data, which biases the choice of keep: "
        f"{both} is {both}"
    ) in told["notes"]


@pytest.mark.parametrize("words", [ASKED, NAMED])
def test_keep_is_chosen_and_all_that_was_tried_stands_on_the_page(words: tuple[str, ...], table: Path) -> None:
    told = adapt(table, *words, "--epochs", "40", "--set", "lr=0.02")
    run, tried = told["run"]["provenance"], told["run"]["tried"]
    assert [one["keep"] for one in tried] == [0.0, *KEEPS]
    best = max(tried, key=lambda one: sum(one["right"].values()))
    assert (run["keep"], run["keep_chosen"], run["n_chosen_on"]) == (best["keep"], True, 2)
    assert {row["measure"] for row in told["measures"]} == {*tried[0]["right"], AGREES}
    assert [row["before"] for row in told["measures"] if row["measure"] != AGREES] == list(tried[0]["right"].values())
    assert [row["after"] for row in told["measures"] if row["measure"] != AGREES] == list(best["right"].values())
    for example in told["examples"]:
        assert all(example["text"] in name for name in example["own"])
        assert example["measure"] in tried[0]["right"]
        assert example["picture"] in example["own"]
        right = [name in example["own"] for name in example["after"]["nearest"]]
        assert right.index(True) + 1 == example["after"]["place"]
    page = (table.parent / "enc" / "run.html").read_text("utf-8")
    assert all(f">{measure.replace(chr(39), '&#39;')}<" in page for measure in tried[0]["right"])
    assert page.count("chosen</small>") == 1


def test_the_least_that_helps_is_kept_where_own_classes_are_forgotten() -> None:
    before, half, whole = (
        Right(0.0, {"a": 0.2}, 0.9),
        Right(0.5, {"a": 0.5}, 0.85),
        Right(1.0, {"a": 0.9, "b": 0.3}, 0.5),
    )
    assert [choose([before, half, whole], cost).keep for cost in (0.0, 0.05, 0.4)] == [0.0, 0.5, 1.0]
    assert whole.gain == pytest.approx(0.6)


class Frame:
    """Stands for a data frame: columns in memory, pictures as arrays."""

    def __init__(self) -> None:
        kinds = ["moss", "rust"] * 6
        self.rows: dict[str, list[Any]] = {"kind": kinds, "title": [f"some {k} {i}" for i, k in enumerate(kinds)]}
        self.rows["photo"] = [picture(k, i) for i, k in enumerate(kinds)]
        self.columns = tuple(self.rows)

    def __getitem__(self, name: str) -> list[Any]:
        return self.rows[name]

    def __len__(self) -> int:
        return 12


@pytest.mark.parametrize("teach", [seewhy.adapt, seewhy.pretrain])
def test_from_python_with_columns_in_memory(teach: Any, tmp_path: Path) -> None:
    heard = Progress()
    one = teach(
        Frame(), opened(), objective="focallens", image="photo", instructions={"kind": "the kind"}, epochs=2, keep=1.0,
        progress=heard,
    )  # fmt: skip
    two = teach(
        Frame(), opened(), objective="prefix", image="photo", label="kind", text="title", epochs=2, learn="prefixes",
        keep=1.0, validation=Frame(),
    )  # fmt: skip
    assert heard.notes == ([] if teach is seewhy.adapt else [ByInstructions.stays])
    assert (len(one.held), len(two.held), len(two.train)) == (2, 12, 12)
    for done, under in ((one, "the kind"), (two, "class")):
        report = run_report(done, notes=["said"])
        check("adapt", [{**report.data, "encoder_folder": "enc"}])
        assert report.data["notes"] == ["said"]
        again = seewhy.encoder(str(done.save(tmp_path / under)), base=opened())
        assert torch.equal(again.under(under).encode_text(["moss"]), done.encoder.under(under).encode_text(["moss"]))


def test_pairs_from_python_by_the_names_of_their_columns() -> None:
    done = seewhy.adapt(Frame(), opened(), image="photo", text="title", label="kind", epochs=1, keep=0.5, width=4)
    assert {item.label for item in done.train.items} == {"moss", "rust"}
    assert done.adaptation.provenance["objective"] == "clip"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"objective": "focallens", "instructions": {"kind": "x"}, "label": "kind"},
            ("label has no effect with the objective 'focallens'. Remove it, or use another objective."),
        ),
        (
            {"instructions": {"kind": "x"}},
            ("instructions has no effect with the objective 'clip'. Remove it, or use another objective."),
        ),
        (
            {"objective": "prefix", "label": "kind", "keep": 2.0},
            "`keep` of adapt must be a number from 0 to 1, got 2.",
        ),
        (
            {"objective": "prefix", "label": "kind", "held_out": 1.0},
            "`held_out` of adapt must be a number above 0 and below 1, got 1. Leave it out to use 0.1.",
        ),
    ],
)
def test_what_does_not_fit_is_refused_from_python(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        seewhy.adapt(Frame(), opened(), **given)
    assert str(caught.value) == said


def rewritten(table: Path, change: Any) -> Path:
    """The table with each row changed."""
    with open(table, encoding="utf-8", newline="") as file:
        rows = [change(i, row) for i, row in enumerate(csv.DictReader(file))]
    with open(table, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


@pytest.mark.parametrize("words", [ASKED, NAMED])
def test_a_long_text_in_the_place_of_a_name_is_refused(words: tuple[str, ...], table: Path) -> None:
    rewritten(table, lambda i, row: {**row, "kind": "word " * 10_000 if i == 5 else row["kind"]})
    name = "kind" if words == ASKED else "class"
    said = str(adapt(table, *words, "--validation", str(table)))
    assert said == (
        f"The column for {name!r} must have values of at most 200 characters, got 49999 for "
        f"{table.parent / 'moss5.png'}: 'word word word word word word '… Shorten the value, or name another column."
    )


def test_captions_in_the_place_of_names_are_said(table: Path) -> None:
    given = ("--column", "text=title", "--keep", "1", "--epochs", "1", "--validation", str(table))
    assert (
        "the column for 'class' has 11 different values in 11 pictures, such as 'some moss 1'; if these "
        "are captions, name another column"
    ) in adapt(table, *NAMED[:2], "--column", "label=title", *given)["notes"]
    assert not any("another column" in note for note in adapt(table, *NAMED[:4], *given, name="other")["notes"])
