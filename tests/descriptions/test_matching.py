"""Texts of single pictures: chosen among those of the class alone, found by bytes, gone on with after a stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from seewhy.cli import app
from seewhy.descriptions import Descriptions
from seewhy.encoders.base import Encoder
from seewhy.encoders.stream import file_digest
from seewhy.errors import DataError, InputError
from seewhy.language.matching import (
    Caption,
    Match,
    match_pictures,
    match_to_file,
    of_pictures,
    read_captions,
    shortened,
    specificity,
)
from seewhy.language.writers import Prompt, Writer, WriterError, WriterSession, Written
from seewhy.pictures.samples import load_samples
from seewhy.types import Failure
from tiny import HashedWords, class_folders, colour_reader


class ColourWords(HashedWords):
    """Sentences and pictures in the space of mean colours, the mean taken off."""

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        return pooled - pooled.mean(1, keepdim=True)


PLANTED = {"red": torch.tensor([1.0, -0.5, -0.5]), "blue": torch.tensor([-0.5, -0.5, 1.0])}
BIRDS = {"bird": ("a blue bird", "a red bird"), "cup": ("a red cup", "a blue cup")}


def seer() -> Encoder:
    """Reads colours, and knows two words for them."""
    made = colour_reader()
    return Encoder(
        name="colours",
        transform=made.transform,
        trunk=lambda: made.trunk,
        head=made.head,
        layout=made.layout,
        fingerprint=made.fingerprint,
        text=lambda: ColourWords(3, PLANTED),
        engine="torch",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Red pictures (of rust) and blue ones (of sky) in both of two classes."""
    made = class_folders(tmp_path / "made", 2, ("rust", "sky"))
    for label in BIRDS:
        (tmp_path / "data" / label).mkdir(parents=True)
        for path in sorted(made.rglob("*.png")):
            # A byte behind the picture's end: the same pixels under another digest.
            (tmp_path / "data" / label / path.name).write_bytes(path.read_bytes() + label.encode())
    return tmp_path / "data"


def test_each_picture_gets_the_text_of_its_own_variant_and_class(folder: Path) -> None:
    found = list(match_pictures(seer(), load_samples(folder), Descriptions.of(BIRDS), Match(top=1)))
    for caption in found:
        assert isinstance(caption, Caption)
        colour = "red" if "rust" in caption.image else "blue"
        assert caption.texts == (f"a {colour} {caption.label}",)
        assert caption.digest == file_digest(caption.image)
    assert len(found) == 8


def test_probabilities_are_a_softmax_over_the_class() -> None:
    order, scores = Match(top=2, scale=2.0).of(torch.tensor([0.6, 0.8]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert order == [1, 0]
    assert scores == pytest.approx([1 / (1 + torch.e ** (-0.4)), 1 / (1 + torch.e**0.4)], rel=1e-4)
    assert Match(top=5).of(torch.tensor([1.0, 0.0]), torch.ones(3, 2))[0] == [0, 1, 2], "ties keep the file's order"
    with pytest.raises(InputError, match=r"`top` of Matching must be .*, got 0"):
        Match(top=0)


def test_specificity_of_texts_for_all_and_for_each() -> None:
    same = [Caption("", "", ("a", "b"), "x") for _ in range(4)]
    assert specificity(same) == {"distinct": 1, "commonest": 1, "entropy": 0, "n_pictures": 4, "n_classes": 1}
    own = [Caption("", "", (str(i),), "x") for i in range(4)]
    assert specificity(own) == {"distinct": 4, "commonest": 0.25, "entropy": 2, "n_pictures": 4, "n_classes": 1}
    assert specificity(same + [Caption("", "", (str(i),), "y") for i in range(4)])["entropy"] == 1.0


class Shortener(Writer):
    """Answers with the second word, and counts."""

    sees = follows_schema = False
    model = "shortener"

    def __init__(self, answer: str | None = None) -> None:
        self.answer = answer
        self.n = 0

    def write(self, prompt: Prompt) -> str:
        self.n += 1
        return prompt.user.split()[1] + "." if self.answer is None else self.answer


def test_texts_are_shortened_once_each_and_never_silently_left_long(folder: Path, tmp_path: Path) -> None:
    writer = Shortener()
    desk = WriterSession(writer, Written(":memory:"))
    found = list(match_to_file(tmp_path / "c.jsonl", seer(), load_samples(folder), Descriptions.of(BIRDS), desk=desk))
    assert {c.texts[0] for c in found if isinstance(c, Caption)} == {"red", "blue"}
    assert writer.n == 4
    assert read_captions(tmp_path / "c.jsonl")[0].model == "colours, shortened by shortener"
    with pytest.raises(WriterError, match="gave 3 invalid answers"):
        shortened(Caption("a", "", ("a long text",)), WriterSession(Shortener(""), Written(":memory:")))


def test_a_broken_picture_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    (folder / "cup" / "broken.png").write_bytes(b"no picture")
    found = list(match_to_file(tmp_path / "c.jsonl", seer(), load_samples(folder), Descriptions.of(BIRDS)))
    assert [Path(f.image).name for f in found if isinstance(f, Failure)] == ["broken.png"]
    assert len(read_captions(tmp_path / "c.jsonl")) == 8


def test_captions_are_read_as_written_and_found_by_bytes_or_name(tmp_path: Path) -> None:
    written = [
        Caption("x/a.jpg", "aa", ("one\u2028line", "two"), "k", (0.75, 0.25), "m", "p"),
        Caption("b.jpg", "", ("b",)),
    ]
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"".join(json.dumps(c.to_json()).encode() + b"\n" for c in written))
    assert list(read_captions(path)) == written
    assert of_pictures(written, ["bb", "aa"], ["z/b.jpg", "elsewhere.jpg"]) == (written[1], written[0])


def refusals() -> Iterator[tuple[str, str]]:
    yield "", "must have at least one line"
    yield '{"image": "a.jpg"}', "line 1, must have a list of texts:"
    yield '{"image": "a.jpg", "texts": ["", "b"]}', "line 1, must have a list of texts:"
    yield '{"text": "b"}', "line 1, must have a digest or an image:"
    yield '{"image": "a.jpg", "text": "b"}\n{"image"', "line 2, must be a JSON object"
    yield '{"image": "a.jpg", "text": "b", "scores": [1, 2]}', "got 2 scores for 1 texts."


@pytest.mark.parametrize(("text", "message"), list(refusals()))
def test_what_is_no_file_of_captions_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_captions(path)
    assert message in str(caught.value)


def test_pictures_and_texts_that_are_not_one_to_one_are_refused() -> None:
    one = Caption("a.jpg", "aa", ("one",))
    with pytest.raises(DataError) as caught:
        of_pictures([one], ["aa", "bb"], ["a.jpg", "b.jpg"])
    assert str(caught.value) == (
        "1 of 2 pictures have no text, for example 'b.jpg'. Texts are matched by the file's digest "
        "or name; the first text is for 'a.jpg'. Write the missing texts, or remove these pictures."
    )
    with pytest.raises(DataError, match="two lines with different texts"):
        of_pictures([one, Caption("a.jpg", "aa", ("two",))], ["aa"], ["a.jpg"])
    with pytest.raises(DataError, match=r"2 pictures are called a\.jpg"):
        of_pictures([Caption("a.jpg", "", ("one",))], ["aa", "bb"], ["x/a.jpg", "y/a.jpg"])


def test_the_command_says_how_specific_the_texts_are(folder: Path, tmp_path: Path, monkeypatch: object) -> None:
    from seewhy.encoders import find

    monkeypatch.setattr(find, "encoder", lambda name, engine="auto": seer())  # type: ignore[attr-defined]
    texts, path = tmp_path / "texts.json", tmp_path / "c.jsonl"
    Descriptions.of(BIRDS).write(texts)
    call = ["describe", "match", str(folder), "--descriptions", str(texts), "-o", str(path), "--store", "none"]
    result = CliRunner().invoke(app, [*call, "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said == {
        "file": str(path),
        "written": 8,
        "distinct": 2.0,
        "commonest": 0.5,
        "entropy": 1.0,
        "n_pictures": 8,
        "n_classes": 2,
    }
    assert "2.0 different best texts per class" in CliRunner().invoke(app, call).stdout
