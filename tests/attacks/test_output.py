"""What SeeWhy did not make stays as it is, to the byte and the second, whatever is named as an output."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.cli import main

Seewhy = Callable[..., str]
"""Arguments → what was said on standard error; the exit code is checked."""

CSV = "image,label\na.jpg,wren\n"
FOREIGN: dict[str, Callable[[Path], object]] = {
    "a photo": lambda p: Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(p, "png"),
    "a line": lambda p: p.write_text("one line"),
    "nothing": lambda p: p.write_bytes(b""),
    "JSON": lambda p: p.write_text('{"wren": ["a small brown bird"]}\n'),
    "a list": lambda p: p.write_text('[{"classes": ["a", "b"], "differences": []}]'),
    "JSON lines": lambda p: p.write_text('{"image": "a.jpg", "label": "wren"}\n{"image": "b.jpg", "text": "x"}\n'),
    "a row": lambda p: p.write_text('{"image": "a.jpg", "digest": "0", "texts": ["x"]}'),
    "CSV": lambda p: p.write_text(CSV),
    "HTML": lambda p: p.write_text("<!doctype html>\n<title>SeeWhy</title>\n" + " " * 64 + "\n"),
    "SQLite": lambda p: database(p),
    "tensors": lambda p: p.write_bytes(struct.pack("<Q", 2) + b"{}"),
    "a card": lambda p: p.write_text('{"encoder": {}, "classes": []}'),
}


def database(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE notes (text CARD)")
    db.commit()
    db.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in two classes, a table, class lists, and nothing of SeeWhy's."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("photos/wren/1.png", "photos/robin/2.png", "other.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(name)
    Path("labels.txt").write_text("wren\nrobin\n")
    Path("labels.json").write_text('{"wren": ["small and brown"], "robin": ["a red breast"]}')
    Path("table.csv").write_text("image,label\nphotos/wren/1.png,wren\nphotos/robin/2.png,robin\n")
    Path("drafts.jsonl").write_text('{"image": "1.png", "description": "A bird."}\n')
    return tmp_path


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path) -> Seewhy:
    """Run the command line in this process; it must end with 2, one sentence, and everything as it was."""

    def run(*arguments: object) -> str:
        before = contents(here)
        monkeypatch.setattr(sys, "argv", ["seewhy", *map(str, arguments), "-q"])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert contents(here) == before
        assert (ended.value.code, said.out) == (2, ""), said.err
        assert said.err.count("\n") == 1
        return said.err

    return run


def contents(folder: Path) -> dict[str, tuple[bytes, int, bool]]:
    """Bytes, time and kind of all that is there; nothing is added either."""
    found = {}
    for path in folder.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        when = path.lstat().st_mtime_ns if not path.is_dir() else 0
        found[str(path.relative_to(folder))] = (data, when, path.is_symlink())
    return found


PHOTO = "photos/wren/1.png"
WRITERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "explain": (("explain", PHOTO, "--labels", "labels.txt", "-o"), (".html", ".png", ".json")),
    "predict": (("predict", PHOTO, "--labels", "labels.txt", "-o"), (".jsonl", ".csv", ".txt")),
    "predict --csv": (("predict", PHOTO, "--labels", "labels.txt", "--csv", "-o"), (".csv",)),
    "evaluate": (("evaluate", "photos", "--labels", "labels.txt", "-o"), (".html", ".json")),
    "search": (("search", "library", "--text", "x", "-o"), (".html", ".json")),
    "describe write": (("describe", "write", "labels.txt", "-w", "m", "-o"), (".json",)),
    "describe write --pairs": (
        ("describe", "write", "--pairs", "photos", "--labels", "labels.txt", "-w", "m", "-o"),
        (".json",),
    ),
    "describe images": (("describe", "images", PHOTO, "--labels", "labels.txt", "-o"), (".jsonl", ".txt")),
    "describe match": (("describe", "match", "photos", "--descriptions", "labels.json", "-o"), (".jsonl",)),
    "app --annotate": (("app", "--data", PHOTO, "--annotate"), (".sqlite",)),
    "app --export": (("app", "--data", PHOTO, "--annotate", "kept.sqlite", "--export"), (".jsonl",)),
    "--store": (("predict", PHOTO, "--labels", "labels.txt", "--store"), (".sqlite",)),
}

FOREIGNERS = (
    r"(, and either SeeWhy did not write it or it has changed since\."
    r"| and was not written by this command\."
    r"| and is not a (feature store|file of annotations) of SeeWhy\.)"
)


@pytest.mark.parametrize("verb", WRITERS)
def test_a_foreign_file_is_refused(verb: str, here: Path, refused: Seewhy) -> None:
    arguments, endings = WRITERS[verb]
    for i, (kind, make) in enumerate(FOREIGN.items()):
        path = Path(f"theirs{endings[i % len(endings)]}")
        make(path)
        said = refused(*arguments, path)
        assert re.search(f"{re.escape(str(path))} exists{FOREIGNERS}", said), kind
        assert "Choose another name" in said
        path.unlink()


@pytest.mark.parametrize("verb", WRITERS)
def test_a_link_to_a_foreign_file_is_refused(verb: str, here: Path, refused: Seewhy) -> None:
    arguments, endings = WRITERS[verb]
    path = Path(f"link{endings[0]}")
    for link in (path.symlink_to, path.hardlink_to):
        link("other.png" if link == path.hardlink_to else here / "other.png")
        assert re.search(f" {re.escape(str(path))} exists{FOREIGNERS}", refused(*arguments, path))
        path.unlink()


CLEAN = ("check", "--texts", "drafts.jsonl", "--column", "text=description", "--skip", "small_picture")
EDITED: dict[str, tuple[tuple[str, ...], str]] = {
    "predict": (("predict", "photos", "--labels", "labels.txt", "-o", "p.jsonl"), "p.jsonl"),
    "predict --csv": (("predict", "photos", "--labels", "labels.txt", "--csv", "-o", "p.csv"), "p.csv"),
    "predict --finding": (("predict", "photos", "--finding", "wren", "-o", "f.jsonl"), "f.jsonl"),
    "predict --finding --csv": (("predict", "photos", "--finding", "wren", "--csv", "-o", "f.csv"), "f.csv"),
    "check": (("check", "photos", "-o", "out"), "out/findings.csv"),
    "detect": (("detect", "photos", "--labels", "labels.txt", "--format", "csv", "-o", "out"), "out/boxes.csv"),
    "describe match": (("describe", "match", "photos", "--descriptions", "labels.json", "-o", "m.jsonl"), "m.jsonl"),
    "check --texts": ((*CLEAN, "-o", "c.jsonl"), "c.jsonl"),
    "check --texts, removed": ((*CLEAN, "-o", "c.jsonl"), "c.removed.jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("verb", EDITED)
def test_what_a_person_edited_is_refused(
    verb: str, here: Path, refused: Seewhy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cell corrected by hand, in a table or lines whose columns are all SeeWhy's."""
    arguments, name = EDITED[verb]
    Path("drafts.jsonl").write_text(
        '{"image": "photos/wren/1.png", "description": "A small brown wren on a mossy stone wall."}\n'
        '{"image": "photos/robin/2.png", "description": "Red."}\n'
    )
    shutil.copy("photos/wren/1.png", "photos/wren/copy.png")  # which check finds
    quiet = ("--store", "none", "-q")
    for _ in range(2):  # as it left it, it is written over
        monkeypatch.setattr(sys, "argv", ["seewhy", *arguments, *quiet])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, capsys.readouterr().err
    capsys.readouterr()
    path = Path(name)
    before = path.read_bytes()
    changed = before.replace(b"wren", b"WREN").replace(b"robin", b"ROBIN")
    assert changed != before
    for theirs in (changed, before + before.splitlines(keepends=True)[-1]):
        path.write_bytes(theirs)
        assert name in refused(*arguments, *quiet)
    monkeypatch.setattr(sys, "argv", ["seewhy", *arguments, *quiet, "--force"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert path.read_bytes() == before


INPUTS: dict[str, tuple[str, ...]] = {
    "a picture": ("predict", "other.png", "--labels", "labels.txt", "-o", "other.png"),
    "a picture of a folder": ("predict", "photos", "--labels", "labels.txt", "-o", PHOTO),
    "the class list": ("predict", "photos", "--labels", "labels.txt", "-o", "labels.txt"),
    "the descriptions": ("predict", "photos", "--labels", "labels.json", "-o", "labels.json"),
    "the table": ("evaluate", "table.csv", "--labels", "labels.json", "-o", "labels.json"),
    "a picture of the table": ("predict", "table.csv", "--labels", "labels.txt", "-o", PHOTO),
    "the captions": ("describe", "images", "photos", "--drafts", "drafts.jsonl", "-o", "drafts.jsonl"),
    "its own texts": ("describe", "match", "photos", "--descriptions", "labels.json", "-o", "labels.json"),
    "one's own card": ("explain", "photos/wren/1.png", "-o", "photos/wren/1.png"),
    "the model": ("predict", "photos", "-m", "model", "-o", "model/seewhy.json"),
    "the model's tensors": ("predict", "photos", "-m", "model", "-o", "model/tensors.safetensors"),
    "the encoder": ("predict", "photos", "-e", "file:weights.safetensors", "-o", "weights.safetensors"),
    "weights of a network": ("predict", "photos", "-e", "torchvision:x@weights.safetensors", "-o",
                             "weights.safetensors"),
    "a folder of weights": ("predict", "photos", "-e", "hf:weights", "-o", "weights/config.json"),
    "a picture without a suffix": ("predict", "photos", "-o", "photos/wren/IM0001"),
    "the store": ("predict", "photos", "--store", "a.sqlite", "-o", "a.sqlite"),
}  # fmt: skip


NOT_REPLACED = "is also an input|must differ|would read it as a picture|SeeWhy did not write"


@pytest.mark.parametrize("what", INPUTS)
@pytest.mark.parametrize("by", ["name", "symlink", "hardlink", "other way"])
def test_an_output_that_is_an_input_is_refused_even_by_force(what: str, by: str, here: Path, refused: Seewhy) -> None:
    Path("photos/wren/IM0001").write_bytes(bytes(128) + b"DICM")
    Path("model").mkdir()
    Path("model/seewhy.json").write_text("{}")
    Path("model/tensors.safetensors").write_bytes(b"1")
    Path("a.sqlite").write_bytes(b"2")
    Path("weights").mkdir()
    Path("weights/config.json").write_text("{}")
    Path("weights.safetensors").write_bytes(b"3")
    *arguments, name = INPUTS[what]
    path = Path(name)
    if by == "other way":
        path = Path("photos/..") / name
    elif by != "name":
        path = here / f"link{path.suffix}"
        getattr(path, f"{by}_to")(Path(name).absolute())
    for force in ((), ("--force",)):
        said = refused(*arguments, path, *force)
        assert str(path) in said
        assert re.search(NOT_REPLACED, said), said


def test_pairs_that_were_removed_are_not_written_over_by_what_is_removed_of_them(here: Path, refused: Seewhy) -> None:
    Path("a.removed.jsonl").write_text('{"image": "other.png", "text": "A wren.", "reasons": {}}\n')
    for force in ((), ("--force",)):
        assert "a.removed.jsonl is also an input" in refused(
            "check", "--texts", "a.removed.jsonl", "-o", "a.jsonl", *force
        )


def test_a_name_on_standard_input_is_an_input_too(here: Path, refused: Seewhy, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PHOTO}\nother.png\n"))
    said = refused("predict", "-", "--labels", "labels.txt", "--store", "none", "--force", "-q", "-o", "other.png")
    assert "--force does not help." in said


def test_a_card_that_would_be_explained_next_time_is_refused(here: Path, refused: Seewhy) -> None:
    said = refused("explain", "photos/wren", "-o", "photos/wren/card.png")
    assert "is in photos/wren, so the next run would read it as a picture. Choose a place outside of it." in said


def test_one_name_for_two_outputs_is_refused(here: Path, refused: Seewhy) -> None:
    said = refused("app", "--data", PHOTO, "--annotate", "a.jsonl", "--export", "photos/../a.jsonl")
    assert "must differ, got" in said
    assert "must differ, got" in refused("predict", PHOTO, "--store", "a.sqlite", "-o", "a.sqlite")


def test_cards_are_not_put_into_the_model(here: Path, refused: Seewhy) -> None:
    Path("model").mkdir()
    Path("model/seewhy.json").write_text("{}")
    Path("link").symlink_to("model")
    for folder in ("model", "link", "photos/../model"):
        assert "new files would be mixed with its own" in refused("explain", PHOTO, "-m", "model", "-o", folder)


@pytest.mark.parametrize("name", ["", "no/such.html", "locked.html"])
def test_a_place_that_cannot_be_is_refused(name: str, here: Path, refused: Seewhy) -> None:
    Path("locked.html").write_text("x")
    Path("locked.html").chmod(0o444)
    said = refused("evaluate", "photos", "--labels", "labels.txt", "-o", name)
    assert ("got an empty name" in said) == (name == "")


FOLDERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "explain": (("explain", PHOTO, "--labels", "labels.txt", "-q", "-o"), ("index.html", "explanations.jsonl",
                                                                    ".explanations.progress.jsonl")),
    "fit": (("fit", "photos", "-o"), ("notes.txt", "seewhy.json")),
    "index": (("index", "photos", "-o"), ("notes.txt", "catalogue.sqlite")),
    "prototypes": (("fit", "--task", "prototypes", "photos", "-o"),
                   ("epic.safetensors", "epic.json", ".epic.checkpoint")),
    "explainer": (("fit", "--task", "explainer", "photos", "-o"),
                  ("t_tame.safetensors", "t_tame.json", ".t_tame.checkpoint")),
    "study faithfulness": (("study", "faithfulness", "photos", "-o"), ("study.html", "study.json", "progress.jsonl")),
}  # fmt: skip


@pytest.mark.parametrize("verb", FOLDERS)
def test_a_foreign_file_in_the_folder_is_refused(verb: str, here: Path, refused: Seewhy) -> None:
    arguments, names = FOLDERS[verb]
    for name in names:
        folder = Path("out")
        folder.mkdir()
        for make in (FOREIGN["a line"], FOREIGN["JSON"]):
            make(folder / name)
            assert "out" in refused(*arguments, "out")
        shutil.rmtree(folder)


def test_the_files_of_another_fit_stay(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``fit -o 'NAME*'`` took its own name for a pattern, and deleted other fits' checkpoints."""
    from seewhy.cli.session import remove_checkpoints
    from seewhy.storage.marks import CHECKPOINT
    from seewhy.storage.tensors import marked_tensors

    facts = {"seal": "", "history": "[]"}
    own = [".b*.checkpoint", ".b*.checkpoint.plain", ".b*.checkpoint.0.01", ".b*.checkpoint.1e-05"]
    others = [".birds.checkpoint", ".b*.checkpoint.checkpoint", ".b*.checkpoint.old", ".b1.checkpoint.plain"]
    for name in (*own, *others):
        Path(name).write_bytes(marked_tensors({}, facts))
    Path(".b*.checkpoint.1").write_text("mine")
    remove_checkpoints(Path(".b*.checkpoint"))
    assert not any(Path(name).exists() for name in own)
    assert all(Path(name).exists() for name in others)
    assert Path(".b*.checkpoint.1").read_text() == "mine"
    assert CHECKPOINT.is_on(Path(others[0]))


@pytest.mark.skipif(os.name == "nt", reason="pipes have no names on Windows")
def test_pipes_and_devices_are_written_to_and_not_replaced(here: Path) -> None:
    from seewhy.storage.output import special, write

    os.mkfifo("pipe.html")
    with subprocess.Popen(["cat", "pipe.html"], stdout=subprocess.PIPE) as reader:
        write("pipe.html", "<p>")
        assert reader.communicate()[0] == b"<p>"
    assert special(Path("pipe.html"))
    write("/dev/null", "x")
    assert Path("/dev/null").is_char_device()
    code = "from seewhy.storage.output import write\nwrite('/dev/stdout', 'x')"
    Path("kept").write_text("before\n")
    with open("kept", "ab") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert Path("kept").read_text() == "before\nx"


def test_nobody_at_the_other_end_of_a_pipe_is_an_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy.errors import DataError
    from seewhy.storage import output

    monkeypatch.setattr(output, "_WAIT", 0.1)
    os.mkfifo("pipe.html")
    with pytest.raises(DataError, match=r"Start the program that reads from it first\."):
        output.write("pipe.html", "<p>")


@pytest.mark.parametrize("where", ["whitening", "columns"])
@pytest.mark.parametrize("do", ["rebuild", "add", "remove", "nearest"])
def test_an_index_that_names_files_outside_touches_none(where: str, do: str, here: Path) -> None:
    """Its catalogue named ``../victim``: rebuilding deleted that file, and adding wrote one beside the index."""
    import torch

    from seewhy.errors import DataError
    from seewhy.retrieval import Index
    from seewhy.retrieval.settings import Settings

    index = Index.create(Path("library"), settings=Settings(whiten=4, words=False), width=8)
    vectors = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    index.add_vectors(vectors, [str(i) for i in range(6)])
    for name in ("victim", "victim-000001.f32", "victim-000002.f32"):
        Path(name).write_bytes(b"mine" * 400)
    catalogue = index._catalogue
    evil = {
        "whitening": {"file": "../victim", "n": 1},
        "columns": {**catalogue.get("columns"), "../victim": [8, 1]},
    }
    with catalogue.writing():
        catalogue.set(**{where: evil[where]})
    before = {p.name: p.read_bytes() for p in here.iterdir() if p.is_file()}
    with pytest.raises(DataError, match=r"as a file of its own|has the invalid value|its columns are none"):
        Index.open(Path("library"))
    with pytest.raises(DataError, match=r"as a file of its own|has the invalid value|its columns are none"):
        {
            "rebuild": index.rebuild,
            "add": lambda: index.add_vectors(vectors, [f"new {i}" for i in range(6)]),
            "remove": lambda: index.remove([str(i) for i in range(5)]),
            "nearest": lambda: index.nearest(vectors[0]),
        }[do]()
    assert {p.name: p.read_bytes() for p in here.iterdir() if p.is_file()} == before


def test_notes_of_a_folder_of_cards_name_nothing_outside(here: Path) -> None:
    import hashlib

    from seewhy.evidence.batch import PROGRESS, CardFolder

    victim = Path("victim.html")
    victim.write_text("mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    line = {
        "key": "k",
        "record": {"image": "x"},
        "entry": {"href": "../victim.html"},
        "files": {"../victim.html": digest},
    }
    Path("why").mkdir()
    Path("why", PROGRESS).write_text(json.dumps(line) + "\n")
    folder = CardFolder(Path("why"))
    assert folder.earlier("k") is None
    assert not folder.is_own("victim.html")
    folder.finish([], "<p>")
    folder.close()
    assert victim.read_text() == "mine"


def test_an_index_page_that_a_person_changed_is_not_written_over(here: Path) -> None:
    from seewhy.errors import ForeignFileError
    from seewhy.evidence.batch import CardFolder

    folder = CardFolder(Path("why"))
    folder.keep("k", {"image": "a"}, {"href": "a.html"}, {"a.html": "<p>"})
    folder.finish([], "<p>")
    folder.close()
    CardFolder(Path("why")).close()
    Path("why/index.html").write_text("mine")
    with pytest.raises(ForeignFileError, match="not written by seewhy explain"):
        CardFolder(Path("why"))
    assert Path("why/index.html").read_text() == "mine"
