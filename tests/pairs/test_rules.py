"""Each rule finds what was planted for it and nothing else; the original stays."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import schemas
import seewhy
from seewhy.errors import DataError, ForeignFileError, InputError, UnknownNameError
from seewhy.language.pairs import Rule, check, clean, rules
from seewhy.language.pairs.checking import beside
from seewhy.language.pairs.filters import Corpus
from seewhy.pictures.pairs import read_pairs
from seewhy.pictures.samples import Samples
from tiny import COLOURS, HUES, colours

GOOD = ("a red bird on a branch", "the blue bus in town", "two dogs running far away")
PLANTED = {
    "unreadable": "gone.png", "small_picture": "small.png", "elongated": "long.png", "copy": "twin.png",
    "repeated_text": "again.png", "too_short": "short.png", "too_long": "wordy.png", "wrong_script": "greek.png",
}  # fmt: skip


def plain(path: Path, size: tuple[int, int] = (210, 210), shade: int = 0) -> str:
    Image.new("RGB", size, (shade, 90, 255 - shade)).save(path)
    return path.name


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One fault of each kind among good pairs, each in a picture of its own."""
    root = tmp_path_factory.mktemp("planted")
    rows = [(plain(root / f"good {i}.png", shade=i), text) for i, text in enumerate(GOOD)]
    rows += [("gone.png", "a picture that is gone")]
    rows += [(plain(root / "small.png", (500, 200), 20), "a picture that is small")]
    rows += [(plain(root / "long.png", (630, 210), 21), "a picture that is long")]
    rows += [(plain(root / "twin.png", shade=1), "the first bus again here")]
    rows += [(plain(root / "again.png", shade=22), t) for t in ("the cat sat down", "The  CAT sat down")]
    rows += [(plain(root / "short.png", shade=23), "a cat")]
    rows += [(plain(root / "wordy.png", shade=24), " ".join(["word"] * 21))]
    rows += [(plain(root / "greek.png", shade=25), "μια γάτα στο δέντρο, a cat")]
    path = root / "pairs.jsonl"
    path.write_text("".join(json.dumps({"image": n, "text": t, "label": "x"}) + "\n" for n, t in rows), "utf-8")
    return path


def broken(name: str, samples: Samples, **settings: Any) -> list[int]:
    return [i for i, _ in rules[name](**settings).broken(Corpus(samples))]


def said(*texts: str | tuple[str, ...]) -> Samples:
    shades = (np.full((4, 4), i % 256, np.uint8) for i in range(len(texts)))
    return read_pairs([(s, [t] if isinstance(t, str) else list(t)) for s, t in zip(shades, texts, strict=True)])


def test_every_planted_fault_is_found_by_its_rule_alone(planted: Path) -> None:
    found = check(planted)
    assert {f.rule: {Path(e.image).name for e in f.examples} for f in found.findings if f.n_pairs} == {
        rule: {name} for rule, name in PLANTED.items()
    }
    assert all(f.n_pairs == f.n_pictures == 1 for f in found.findings if f.n_pairs)
    assert (found.n_pictures, found.n_pairs, found.n_kept) == (11, 12, 4)
    reasons = {f.rule: f.examples[0].reason for f in found.findings if f.examples}
    assert reasons == {
        "unreadable": "does not exist; check the spelling and the folder",
        "small_picture": "is 500 x 200 pixels",
        "elongated": "is 3.0 times as long as it is wide",
        "copy": f"is the same picture as {planted.parent / 'good 1.png'}",
        "repeated_text": "occurs twice for this picture",
        "too_short": "has 2 words",
        "too_long": "has 21 words",
        "wrong_script": "is written in GREEK, not in LATIN",
    }
    assert [f.rule for f in found.findings if f.missing] == ["poor_match"]
    assert str(found).splitlines()[:3] == [
        "11 pictures with 12 texts; 4 pairs break no rule",
        "copy\t1 pairs of 1 pictures",
        f"\t{planted.parent / 'twin.png'}\t'the first bus again here' {reasons['copy']}",
    ]


def test_the_paper_s_numbers_are_the_defaults() -> None:
    """ALIGN, section 3.1."""
    settings = {name: vars(rules[name]()) for name in rules if rules[name].paper.endswith("2102.05918")}
    assert settings == {
        "small_picture": {"more_than": 200}, "elongated": {"less_than": 3.0}, "many_texts": {"most": 1000},
        "shared_text": {"most": 10}, "too_short": {"least": 3}, "too_long": {"most": 20},
    }  # fmt: skip


@pytest.mark.parametrize("name", list(rules))
def test_a_rule_is_frozen_and_says_what_it_is(name: str) -> None:
    cls: Any = rules[name]
    assert issubclass(cls, Rule)
    assert cls.name == name
    assert hash(cls()) == hash(cls())
    assert cls.__doc__
    assert cls.paper
    assert cls.needs in ("texts", "pictures", "an encoder")


def test_a_text_of_many_pictures_and_a_picture_of_many_texts() -> None:
    samples = said(*["an Image of  it"] * 5, *["an image of it"] * 6, *["another image"] * 10)
    assert broken("shared_text", samples) == list(range(11))
    assert broken("shared_text", samples, most=11) == []
    assert broken("many_texts", said(("a", "b", "c"), ("d", "e")), most=2) == [0, 1, 2]
    assert broken("shared_text", said(("same words",) * 11, "other")) == [], "of one picture"


def test_words_are_counted_as_a_person_counts() -> None:
    assert broken("too_short", said("it's two-fold", "one two", "a, b - c", "ich möchte Käse")) == [1]


def test_a_script_is_that_of_most_texts_or_the_one_named() -> None:
    samples = said("кошка спит", "собака бежит", "a cat", "12 !", "кот Cat")
    assert broken("wrong_script", samples) == [2]
    assert broken("wrong_script", samples, script="latin") == [0, 1]
    assert broken("wrong_script", said("1 2", "3")) == []


def test_swapped_texts_fit_worse_than_others_do(tmp_path: Path) -> None:
    rows = [(np.full((40, 40, 3), COLOURS[c], np.uint8), f"a {h} thing") for c, h in HUES.items() for _ in range(4)]
    right = read_pairs(rows)
    items = list(right.items)
    items[0], items[8] = replace(items[0], texts=items[8].texts), replace(items[8], texts=items[0].texts)
    swapped = replace(right, items=tuple(items))
    found = check(swapped, with_rules=[rules["poor_match"](least=0.0)], encoder=colours())
    assert [e.image for e in found.findings[0].examples] == ["picture 1", "picture 9"]
    assert check(right, with_rules=[rules["poor_match"](least=0.0)], encoder=colours()).n_kept == 16
    gone = replace(items[3], image=str(tmp_path / "gone.png"), pixels=None)
    hidden = replace(swapped, items=(*items[:3], gone, *items[4:]))
    assert check(hidden, with_rules=[rules["poor_match"](least=0.0)], encoder=colours()).findings[0].n_pairs == 2


def test_what_is_cleaned_is_beside_what_is_kept(planted: Path, tmp_path: Path) -> None:
    before = planted.read_bytes()
    cleaned = seewhy.language.pairs.clean(planted)
    assert [Path(s.image).name for s in cleaned.kept.items] == ["good 0.png", "good 1.png", "good 2.png", "again.png"]
    place = tmp_path / "clean.jsonl"
    assert cleaned.save(place) == (place, beside(place))
    assert planted.read_bytes() == before
    again = seewhy.load_pairs(place)
    assert [(Path(s.image).resolve(), s.texts, s.label) for s in again.items] == [
        (Path(s.image).resolve(), s.texts, s.label) for s in cleaned.kept.items
    ]
    rows = [json.loads(line) for line in beside(place).read_text("utf-8").splitlines()]
    assert {next(iter(row["reasons"])): Path(row["image"]).name for row in rows} == PLANTED
    assert all(row["label"] == "x" for row in rows)
    assert len(rows) == 8


def test_a_pair_that_breaks_two_rules_says_both(tmp_path: Path) -> None:
    Image.new("RGB", (99, 99)).save(tmp_path / "a.png")
    Image.new("RGB", (299, 299)).save(tmp_path / "b.png")
    cleaned = clean([(tmp_path / "a.png", "a cat"), (tmp_path / "b.png", "a cat on a tree")])
    assert {*cleaned.removed[0].reasons} == {"small_picture", "too_short"}


def test_what_is_refused(planted: Path, tmp_path: Path) -> None:
    cleaned = clean(planted, with_rules=[rules["too_short"]()])
    with pytest.raises(DataError) as caught:
        cleaned.save(tmp_path / "c.csv")
    assert str(caught.value) == (f"The name of a file of cleaned pairs must end in .jsonl, got {tmp_path / 'c.csv'}.")
    with pytest.raises(ForeignFileError):
        cleaned.save(planted)
    with pytest.raises(DataError, match="picture 1 must be in a file"):
        clean(said("a b c", "d e f"), with_rules=[]).save(tmp_path / "c.jsonl")
    with pytest.raises(DataError) as empty:
        clean(said("a", "b")).save(tmp_path / "c.jsonl")
    assert str(empty.value) == (
        "Every pair breaks a rule, so there is nothing to write. Remove a rule, or change its setting."
    )
    with pytest.raises(InputError) as wrong:
        check(planted, with_rules=[rules["copy"]()] * 2)
    assert str(wrong.value) == "`with_rules` must have each rule once, got 'copy' twice."
    assert list(tmp_path.iterdir()) == []


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    from seewhy.cli import app

    monkeypatch.setattr(sys, "argv", ["seewhy", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        app()
    return int(end.value.code or 0)


def test_the_commands(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "check", "--texts", planted, "--json", "--set", "too_short:least=5", "--skip", "copy") == 0
    told = json.loads(capsys.readouterr().out)
    schemas.check("pairs-check", [told])
    counts = {f["rule"]: f["n_pairs"] for f in told["findings"]}
    assert counts["too_short"] == 3
    assert "copy" not in counts
    assert (told["n_pictures"], told["n_pairs"], told["n_kept"]) == (11, 12, 4)
    assert run(monkeypatch, "check", "--texts", planted, "-o", "c.jsonl", "--json") == 0
    cleaned = json.loads(capsys.readouterr().out)
    schemas.check("pairs-clean", [cleaned])
    assert cleaned == {
        "file": "c.jsonl", "removed_file": "c.removed.jsonl", "pictures": 4, "pairs": 4, "removed": 8
    }  # fmt: skip
    assert run(monkeypatch, "check", "--texts", planted, "--set", "n_examples=0") == 0
    assert capsys.readouterr().out.splitlines()[1] == "copy\t1 pairs of 1 pictures"


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ("too_long=1", InputError, "--set must be RULE:FIELD=VALUE, got 'too_long=1'."),
        ("too_long:most=x", InputError, "`most` of too_long must be a whole number, got x."),
        ("too_lng:most=4", UnknownNameError, "too_long"),
        ("too_long:mst=4", UnknownNameError, "most"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(given: str, kind: type[Exception], message: str) -> None:
    from seewhy.cli.check import _rules
    from seewhy.cli.session import Session

    with pytest.raises(kind) as caught:
        _rules(Session("check", None, set_=[given]), None)
    assert message in str(caught.value)


def test_a_fit_is_compared_with_texts_of_other_pictures_alone() -> None:
    """z by its formula; what cannot be read has none."""
    corpus = Corpus(said("a", ("b", "c"), "d", "e"))
    pictures = torch.eye(4)[:, :3].clone()  # the last could not be read
    texts = torch.tensor([[0.6, 0.8, 0.0], [0.0, 1.0, 0.0], [0.8, 0.1, 0.0], [0.5, 0.3, 0.7], [0.2, 0.4, 0.9]])
    corpus.__dict__["vectors"] = pictures, texts
    z = {}
    for i, (picture, _) in enumerate(corpus.pairs[:4]):
        others = [float(texts[k] @ pictures[picture]) for k, (p, _) in enumerate(corpus.pairs) if p != picture]
        z[i] = (float(texts[i] @ pictures[picture]) - np.mean(others)) / np.std(others)
    for least in (-2.0, *(v + 0.01 for v in z.values()), 9.0):
        assert [i for i, _ in rules["poor_match"](least=least).broken(corpus)] == [i for i, v in z.items() if v < least]
