"""Rules at their borders, and what is told of what they found: each with its known answer."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_rules import broken, run, said

from seewhy.cli import app
from seewhy.errors import ForeignFileError
from seewhy.language.pairs import check, clean, rules
from seewhy.language.pairs.checking import beside
from seewhy.language.pairs.filters import Corpus, Glance, folded
from seewhy.pictures.pairs import read_pairs
from tiny import COLOURS, HUES, colours


def of(**sizes: tuple[int, int]) -> Any:
    """Pairs of pictures of these sizes."""
    corpus = Corpus(said(*["one text of words"] * len(sizes)))
    corpus.__dict__["glances"] = tuple(Glance(size, name) for name, size in sizes.items())
    return corpus


def test_sides_and_ratios_at_their_borders() -> None:
    sizes: dict[str, tuple[int, int]] = {
        "a": (200, 900), "b": (900, 200), "c": (201, 201), "d": (600, 201), "e": (201, 603), "f": (603, 201),
    }  # fmt: skip
    assert [i for i, _ in rules["small_picture"]().broken(of(**sizes))] == [0, 1]
    assert [i for i, _ in rules["elongated"]().broken(of(**sizes))] == [0, 1, 4, 5]
    reasons = dict(rules["elongated"](less_than=2.5).broken(of(**sizes)))
    assert reasons == {0: "is 4.5 times as long as it is wide", 1: "is 4.5 times as long as it is wide",
                       3: "is 3.0 times as long as it is wide", 4: "is 3.0 times as long as it is wide",
                       5: "is 3.0 times as long as it is wide"}  # fmt: skip


def test_pictures_that_cannot_be_read_are_no_copies_of_one_another() -> None:
    corpus = Corpus(said("one", "two", "three", "four"))
    corpus.__dict__["glances"] = (
        Glance(None, "", "gone"),
        Glance(None, "", "gone"),
        Glance((9, 9), "d"),
        Glance((9, 9), "d"),
    )
    assert dict(rules["copy"]().broken(corpus)) == {3: "is the same picture as picture 3"}
    assert [i for i, _ in rules["unreadable"]().broken(corpus)] == [0, 1]


def test_counts_at_their_borders() -> None:
    many = said(("a", "b"), ("c", "d", "e"))
    assert broken("many_texts", many, most=2) == [2, 3, 4]
    assert broken("too_short", said("a b c", "a b")) == [1]
    assert broken("too_long", said(" ".join("abcdefghijklmnopqrst"), " ".join("abcdefghijklmnopqrstu"))) == [1]
    assert broken("too_short", said("it’s two", "it’s a bird")) == [0], "either apostrophe is inside a word"


def test_texts_are_compared_as_a_person_does() -> None:
    assert folded(" Ａ  Ｃａｔ\n") == folded("a cat") == "a cat"
    assert folded("STRASSE") == folded("Straße")


def test_which_texts_a_fit_is_compared_with() -> None:
    """Of drawn texts alone: with one draw for all, ``n_others`` and ``seed`` say which."""
    corpus = Corpus(said(*[f"text {i}" for i in range(40)]))
    draws = torch.Generator().manual_seed(1)
    pictures, texts = (torch.nn.functional.normalize(torch.randn(40, 8, generator=draws), dim=1) for _ in range(2))
    corpus.__dict__["vectors"] = pictures, texts
    for n, seed in ((5, 0), (5, 1), (40, 0)):
        drawn = torch.randperm(40, generator=torch.Generator().manual_seed(seed))[:n]
        expected = []
        for i in range(40):
            others = np.array([float(pictures[i] @ texts[k]) for k in drawn if k != i])
            z = (float(pictures[i] @ texts[i]) - others.mean()) / others.std()
            expected += [i] if z < -0.5 else []
        assert [i for i, _ in rules["poor_match"](n_others=n, seed=seed).broken(corpus)] == expected


def test_looks_and_texts_are_kept_and_of_unit_length(tmp_path: Path) -> None:
    rows = [(np.full((40, 40, 3), COLOURS[c], np.uint8), f"a {h} thing") for c, h in HUES.items()]
    on = colours()
    pictures, texts = Corpus(read_pairs(rows), on).vectors
    torch.testing.assert_close(pictures.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(4))
    gone = read_pairs([*rows, (tmp_path / "gone.png", "a red thing")])
    assert Corpus(gone, on).vectors[0][4].tolist() == [0.0] * pictures.shape[1]


def test_what_is_told_of_what_was_found() -> None:
    texts = [f"text {i}" for i in range(5)]
    found = check(
        said(*texts, "three good words"), with_rules=[rules["too_short"](), rules["poor_match"]()], n_examples=2
    )
    assert (found.n_pairs, found.n_kept) == (6, 1)
    first, missing = found.findings
    assert [example.text for example in first.examples] == ["text 0", "text 1"]
    assert [example.image for example in first.examples] == ["picture 1", "picture 2"]
    assert (first.n_pairs, first.n_pictures, first.settings) == (5, 5, {"least": 3})
    assert (missing.missing, missing.n_pairs) == ("an encoder", 0)
    assert str(found).splitlines()[-1] == "poor_match\tnot applied: needs an encoder"
    both = check(said(("a", "a", "a b c d")), with_rules=[rules["too_short"](), rules["repeated_text"]()])
    assert both.n_kept == 1, "a pair that breaks two rules is one pair"
    assert [finding.n_pairs for finding in both.findings] == [2, 1]


def test_texts_that_are_cut_are_noted() -> None:
    on = colours()
    on.text.n_cut = lambda texts: sum(len(text) > 12 for text in texts)  # type: ignore[method-assign]
    rows = [(np.full((40, 40, 3), 9, np.uint8), text) for text in ("a red thing", "a long blue thing")]
    assert check(rows, with_rules=[], encoder=on).notes == ("1 text(s) are longer than the encoder reads, and are cut",)
    assert check(rows, with_rules=[]).notes == ()


def grouped(folder: Path) -> Path:
    """Pictures of two groups, whose texts are too short here and there."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (9, 9), (ord(name[0]), 0, 0)).save(folder / name)
    rows = [("a.png", "a good cat", "cat", "g1"), ("a.png", "Mäuse", "cat", "g1"), ("b.png", "dog", "dog", "g2")]
    keys = ("image", "text", "label", "group")
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows), "utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def test_classes_and_groups_are_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    place = tmp_path / "out" / "clean.jsonl"
    clean(grouped(tmp_path), with_rules=[rules["too_short"]()], group="group").save(place)
    assert lines(place) == [{"image": "../a.png", "texts": ["a good cat"], "label": "cat", "group": "g1"}]
    assert [(row["text"], row["label"], row["group"]) for row in lines(beside(place))] == [
        ("Mäuse", "cat", "g1"), ("dog", "dog", "g2"),
    ]  # fmt: skip
    assert "Mäuse" in beside(place).read_text("utf-8")


def test_files_of_others_beside_a_set_are_left_and_endings_in_capitals_taken(tmp_path: Path) -> None:
    cleaned = clean(grouped(tmp_path), with_rules=[rules["too_short"]()])
    place = tmp_path / "C.JSONL"
    assert cleaned.save(place) == (place, tmp_path / "C.removed.jsonl")
    other = tmp_path / "d.removed.jsonl"
    other.write_text("mine")
    with pytest.raises(ForeignFileError):
        cleaned.save(tmp_path / "d.jsonl")
    assert (other.read_text(), (tmp_path / "d.jsonl").exists()) == ("mine", False)
    cleaned.save(tmp_path / "d.jsonl", force=True)


def test_pictures_of_a_shard_are_named_in_it(tmp_path: Path) -> None:
    grouped(tmp_path)
    (tmp_path / "a.txt").write_text("a cat on a tree")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("a.png", "a.txt"):
            tar.add(tmp_path / name, name)
    clean(tmp_path / "s.tar", with_rules=[]).save(tmp_path / "clean.jsonl")
    assert lines(tmp_path / "clean.jsonl") == [{"image": "s.tar/a.png", "texts": ["a cat on a tree"]}]


def test_every_option_reaches_what_it_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, Any] = {}

    class Stop(SystemExit):
        """What was to be run was asked for."""

    def stop(*given: Any, **how: Any) -> Any:
        told.update(how, given=given)
        raise Stop

    monkeypatch.setattr("seewhy.encoders.find.encoder", lambda *given, **how: (given, how))
    monkeypatch.setattr("seewhy.cli.options.open_store", lambda place: SimpleNamespace(path=place, n_used=0))
    for verb in ("check", "clean"):
        monkeypatch.setattr(f"seewhy.language.pairs.{verb}", stop)
    place = grouped(tmp_path)
    asked = [
        place,
        "-e",
        "net",
        "--engine",
        "torch",
        "--store",
        "kept",
        "--set",
        "too_long:most=50",
    ]
    asked += ["--skip", "copy", "--column", "image=i", "--column", "text=t", "--column", "text=u"]
    asked += ["--column", "label=l", "--group", "g"]
    for more in (["--set", "n_examples=7"], ["-o", str(tmp_path / "c.jsonl")]):
        told.clear()
        run(monkeypatch, "check", "--texts", *asked, *more)
        assert (told["encoder"], told["store"].path) == ((("net",), {"engine": "torch"}), "kept")
        assert [told[key] for key in ("image", "text", "label", "group")] == ["i", ["t", "u"], "l", "g"]
        chosen = {rule.name: rule for rule in told["with_rules"]}
        assert (chosen["too_long"].most, "copy" in chosen, len(chosen)) == (50, False, len(list(rules)) - 1)
        assert told.get("n_examples", 7) == 7
    told.clear()
    with pytest.raises(
        ForeignFileError,
        match=r"is also an input, and would be overwritten\. Choose another name; --force does not help\.",
    ):
        app(["check", "--texts", str(place), "-o", str(place), "--force"], standalone_mode=False)
    assert told == {}
