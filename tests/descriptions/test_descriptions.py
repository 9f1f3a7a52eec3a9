"""Descriptions: what a file may hold, the sentences made of them, and scores by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from seewhy.classifiers.unfitted import Described, ZeroShot
from seewhy.descriptions import Descriptions, WordBank
from seewhy.descriptions.base import describe, name_only, random_words
from seewhy.errors import DataError, ForeignFileError, InputError, ModelError
from seewhy.language.questions import read_pairs
from tiny import noise, tiny_cnn

NO_TEXT = "{path}: the class 'a' must have a list of texts."
FORM = '{"class": ["text", …], …}.'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a red breast", "robin, which is a red breast"),
        ("an orange face", "robin, which is an orange face"),
        ("the garden bird", "robin, which has the garden bird"),
        ("used as a symbol", "robin, which is used as a symbol"),
        ("has thin legs", "robin, which has thin legs"),
        ("often sings", "robin, which often sings"),
        ("typically small", "robin, which typically small"),
        ("may be round", "robin, which may be round"),
        ("can fly", "robin, which can fly"),
        ("is small", "robin, which has is small"),
        ("thin legs", "robin, which has thin legs"),
        ("amber eyes", "robin, which is amber eyes"),
        ("Amber eyes", "robin, which has Amber eyes"),
        ("canary yellow", "robin, which canary yellow"),
        ("usedom", "robin, which is usedom"),
        ("", "robin, which has "),
        ("robin", "robin, which has robin"),
    ],
)
def test_sentences(text: str, sentence: str) -> None:
    """As make_descriptor_sentence of sachit-menon/classify_by_description_release @ d1a3d89 gives them."""
    assert describe("robin", text) == sentence


def test_read_and_write(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('{"b": ["two", " one ", "two", " "], "ä": "alone"}', encoding="utf-8-sig")
    found = Descriptions.read(path)
    assert found == Descriptions({"b": ("two", "one"), "ä": ("alone",)})
    with pytest.raises(ForeignFileError):
        found.write(path)
    path = tmp_path / "e.json"
    found.write(path)
    assert Descriptions.read(path) == found
    assert list(found.limited_to(["ä", "b"]).texts) == ["ä", "b"]


def test_a_class_with_an_empty_list_goes_by_its_name(tmp_path: Path) -> None:
    """Two of the authors' files have such classes; their sentence for one is *donuts, which has*."""
    path = tmp_path / "d.json"
    path.write_text('{"donuts": [], "mussels": ["dark shells"]}')
    found = Descriptions.read(path)
    assert found.texts == {"donuts": ("donuts",), "mussels": ("dark shells",)}
    assert found.sentences() == ["donuts, which has ", "mussels, which has dark shells"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "{path} must have at least one class: " + FORM),
        ("[]", "{path} must have at least one class: " + FORM),
        ("3", "{path} must have at least one class: " + FORM),
        ('["a", "b"]', "{path} must have at least one class: " + FORM),
        ('{"a": ["x"], "a": ["y"]}', "{path} must have each class once, got 'a' twice. Merge its texts."),
        ('{"a": [1]}', NO_TEXT),
        ('{"a": {"b": "c"}}', NO_TEXT),
        ('{"a": ["  "]}',
         "{path}: the class 'a' must have at least one text. Write one, or remove the class."),
        ("{", "{path} cannot be read: Expecting property name enclosed in double quotes: line 1 column 2 (char 1). "
         "It must contain " + FORM),
    ],
)  # fmt: skip
def test_files_that_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        Descriptions.read(path)
    assert str(caught.value) == message.replace("{path}", str(path))


def test_a_file_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text("[" * 100_000)
    for read, cure in ((Descriptions.read, FORM), (read_pairs, "")):
        with pytest.raises(DataError, match="cannot be read: it is nested too deeply") as caught:
            read(path)
        assert str(caught.value).endswith(cure)


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    words = Descriptions.of({"a": ["red"], "b": ["caf\udce9"]})
    with pytest.raises(InputError) as caught:
        WordBank.build(tiny_cnn(), words, with_names=False)
    assert str(caught.value) == (r"Texts must be valid UTF-8, got the character '\udce9'.")


def test_a_class_without_descriptions_is_named() -> None:
    with pytest.raises(DataError) as caught:
        Descriptions({"a": ("x",)}).limited_to(["a", "b", "c"])
    assert str(caught.value).startswith("There are no descriptions for 'b', 'c'")


def test_scores_are_mean_cosines_by_hand() -> None:
    """Menon & Vondrick, equation 1: the plain mean over descriptors, not normalised again."""
    encoder = tiny_cnn()
    words = Descriptions({"moss": ("green", "has soft stems", "a cushion"), "rust": ("brown",)})
    model = Described().build(encoder, words)
    look = encoder.encode(noise(4))
    pictures = normalize(encoder.text.project(look.pooled), dim=1)
    sentences = {
        "moss": ["moss, which has green", "moss, which has soft stems", "moss, which is a cushion"],
        "rust": ["rust, which has brown"],
    }
    by_hand = torch.stack([(pictures @ encoder.encode_text(s).T).mean(1) for s in sentences.values()], dim=1)
    logits = model.head(look.pooled)
    torch.testing.assert_close(logits, 20 * by_hand, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(Described(scale=1.0).build(encoder, words).head(look.pooled), by_hand)
    torch.testing.assert_close(pictures, encoder.encode_image(noise(4)))


def test_zero_shot_weights_by_hand() -> None:
    encoder = tiny_cnn()
    model = ZeroShot().build(encoder, ["moss", "sky", "sand"])
    torch.testing.assert_close(model.head.weight.norm(dim=1), torch.ones(3))
    for row, name in zip(model.head.weight, model.classes, strict=True):
        vectors = encoder.encode_text([t.format(name) for t in encoder.text.templates])
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
        torch.testing.assert_close(row, normalize(vectors.mean(0), dim=0))
    assert model.head.scale == 20
    one = ZeroShot(templates=("{}!",), scale=5.0).build(encoder, ["moss", "sky"])
    torch.testing.assert_close(one.head.weight, encoder.encode_text(["moss!", "sky!"]))
    assert one.head.scale == 5


def test_names_and_templates_that_are_refused() -> None:
    encoder = tiny_cnn()
    for names, message in (
        (["moss"], "At least two class names are required, got 1. Separate the names by commas."),
        (["moss", " "], "At least two class names are required, got 1. Separate the names by commas."),
        (["moss", "sky", " moss"], "Class names must differ, but 'moss' occurs twice."),
    ):
        with pytest.raises(DataError) as caught:
            ZeroShot().build(encoder, names)
        assert str(caught.value) == message
    with pytest.raises(InputError) as refused:
        ZeroShot(templates=("a photo",)).build(encoder, ["moss", "sky"])
    assert str(refused.value) == ("A template must have {} for the class name, got 'a photo'.")


def test_an_encoder_without_words_says_so() -> None:
    encoder = tiny_cnn()
    encoder._text = None
    with pytest.raises(ModelError) as caught:
        ZeroShot().build(encoder, ["moss", "sky"])
    assert str(caught.value) == (
        "The encoder 'tiny' has no text encoder. Use an image-text model: the embedded 'lite0', "
        "'open_clip:MODEL/PRETRAINED' or a CLIP or SigLIP model, 'hf:ORG/NAME'."
    )


def test_word_bank() -> None:
    encoder = tiny_cnn()
    bank = WordBank.build(encoder, Descriptions({"a": ("x", "y"), "b": ("z",)}), with_names=False)
    assert bank.texts == ("x", "y", "z")
    assert bank.owner.tolist() == [0, 0, 1]
    assert bank.of(0) == [0, 1]
    torch.testing.assert_close(bank.vectors, encoder.encode_text(["x", "y", "z"]))
    torch.testing.assert_close(bank.class_weight()[0], bank.vectors[:2].mean(0))


def test_controls() -> None:
    words = Descriptions({"moss": ("soft green", "wet stones"), "rust": ("brown",)})
    assert name_only(words) == {"moss": ("moss",), "rust": ("rust",)}
    noise_words = random_words(words, 0)
    assert noise_words == random_words(words, 0)
    assert noise_words != random_words(words, 1)
    assert {c: len(t) for c, t in noise_words.items()} == {"moss": 2, "rust": 1}
    assert all(t.startswith(f"{c}, which has ") for c, lines in noise_words.items() for t in lines)
    said = [t.removeprefix("moss, which has ") for t in noise_words["moss"]]
    assert noise_words["rust"] == (f"rust, which has {said[0]}",)
    # 5 words in 3 descriptions: 2 each; 25 letters in 5 words: 5 each.
    assert all([len(w) for w in line.split()] == [5, 5] for line in said)
