"""Reproductions about words: on the drawn world alone, whose words are known, the claims that must show do."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from seewhy.descriptions import Descriptions
from seewhy.pictures.samples import load_samples

pytestmark = pytest.mark.usefixtures("beside_the_scripts")


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_descriptions_with_a_meaning_help_by_it(tmp_path: Path) -> None:
    report = script("classification_by_description").main(
        ["--n", "6", "--n-noise", "2", "--out", str(tmp_path / "report.json")]
    )
    assert [c.verdict for c in report.claims[:3]] == ["shown"] * 3
    assert "one picture a class" in report.claims[-1].claim
    assert (tmp_path / "report.json").exists()


def test_chosen_descriptions_cannot_do_better_than_the_class_being_in_question() -> None:
    report = script("discriminative_descriptions").main(["--n", "6", "--n-noise", "2"])
    figures = report.numbers["drawn world"]
    assert figures["descriptions, chosen"][0] <= figures["class in question, chosen"][0]
    assert len(report.claims) == 4


def test_captions_that_part_classes_do_more_than_those_that_do_not() -> None:
    report = script("fudd").main(["--n", "10", "--n-noise", "2"])
    assert [c.verdict for c in report.claims] == ["shown"] * 3
    figures = report.numbers["drawn world"]
    assert figures["FuDD"][0] <= figures["in question"][0]


def test_the_study_tells_meaning_from_ensembling_where_both_are_known(tmp_path: Path) -> None:
    """Words that are true, words that are another class's, and noise, which blurred names make an ensemble of."""
    controls = script("description_controls")
    world = script("attribute_world").World(0)
    samples = load_samples(world.draw(tmp_path / "drawn", 20))
    study, words = (
        script("description_semantics").DescriptionSemanticsStudy(n_noise=2, n_draws=200),
        world.descriptions(),
    )
    said = {
        name: study.run(world.encoder(), given, samples).sentence
        for name, given in (
            ("true", words),
            ("swapped", controls.swapped(words, 1)),
            ("noise", controls.own_noise(words, 1)),
        )
    }
    assert said["true"].startswith("These words help, by what they say; ")
    assert said["swapped"].startswith(("These words do harm; ", "These words do not help, "))
    assert said["noise"].startswith("These words help, not shown to be by what they say: it may be ensembling alone; ")
    assert "no meaning of their own is shown" in said["noise"]


def test_a_table_of_products_gives_a_text_a_sentence(tmp_path: Path) -> None:
    table = tmp_path / "classes.csv"
    table.write_text(
        'class,coarse,description\nLime,Citrus,"A green fruit. Sour!"\nKiwi,Fruit,Brown and hairy.\n', "utf-8"
    )
    read = script("product_texts").read_words
    words = Descriptions({"Lime": ("A green fruit.", "Sour!"), "Kiwi": ("Brown and hairy.",)})
    assert read(table) == words
    words.write(tmp_path / "words.json")
    assert read(tmp_path / "words.json") == words


def test_captions_of_a_pair_are_what_the_rival_shares_least_and_the_control_what_it_shares_most() -> None:
    fudd = script("fudd")
    words = Descriptions(
        {"a": ("round and green", "smooth skin"), "b": ("round and brown", "long hair"), "c": ("hairy",)}
    )
    differ, alike = ({p.classes: p for p in fudd.pairs_of(words, alike=x)} for x in (False, True))
    (apart,), (shared,) = differ["a", "b"].differences, alike["a", "b"].differences
    assert (apart.first, apart.second) == ("a, which has smooth skin", "b, which has long hair")
    assert (shared.first, shared.second) == ("a, which has round and green", "b, which has round and brown")
    assert {d.second for d in differ["b", "c"].differences} == {d.second for d in alike["b", "c"].differences}
