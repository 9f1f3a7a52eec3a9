"""``seewhy index`` and ``seewhy search`` as people and scripts meet them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import seewhy
from seewhy.cli import app
from seewhy.cli.index import _entries
from seewhy.cli.session import Session
from seewhy.encoders.stream import encode_stream
from seewhy.errors import DataError, InputError
from seewhy.heads.head import Head
from seewhy.heads.normalise import Normalise
from seewhy.learning.adaptation.backbone import Start, TunedNetwork
from seewhy.learning.encoders.image_copy import ImageCopy
from seewhy.retrieval import Entry
from tiny import CLASSES, class_folders

runner = CliRunner()


def ran(*arguments: object) -> Any:
    done = runner.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    return done.exit_code, json.loads(done.stdout)


def test_classes_are_the_folders_next_below(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pictures", 1, side=8)
    loose = folder / "moss" / "moss_0.png"
    (folder / "loose.png").write_bytes(loose.read_bytes())
    found = list(_entries(Session("index", None), [folder]))
    assert sorted((Path(str(e.source)).name, e.label) for e in found) == [
        ("loose.png", ""),
        *((f"{c}_0.png", c) for c in sorted(CLASSES[:3])),
    ]
    table = tmp_path / "table.csv"
    table.write_text("image,label\npictures/loose.png,green\n")
    assert list(_entries(Session("index", None), [table, loose])) == [
        Entry(str(folder / "loose.png"), "green"),
        Entry(str(loose), ""),
    ]


def test_mistakes_are_said(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=(
            r"No change to the index was given\. Give pictures to add, or use --forget, "
            r"--forget-missing, --rebuild or --verify\."
        ),
    ):
        runner.invoke(app, ["index", "-o", str(tmp_path / "x")], catch_exceptions=False)
    with pytest.raises(DataError, match="is not a SeeWhy index"):
        runner.invoke(app, ["search", str(tmp_path), "--text", "a"], catch_exceptions=False)
    with pytest.raises(DataError, match="is not a SeeWhy index"):
        runner.invoke(
            app, ["index", str(tmp_path / "any.png"), "-o", str(tmp_path / "x"), "--add"], catch_exceptions=False
        )


@pytest.mark.slow
def test_from_pictures_to_a_page(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pictures", 3, side=64)
    (folder / "moss" / "broken.png").write_bytes(b"\x89PNG")
    index = tmp_path / "library"
    code, told = ran("index", folder, "-o", index, "--store", "none", "--json")
    assert (code, told["added"], told["failed"], told["n"], told["labels"]) == (0, 9, 1, 9, 3)
    assert [Path(f["image"]).name for f in told["failures"]] == ["broken.png"]
    (folder / "moss" / "broken.png").unlink()
    code, told = ran("index", folder, "-o", index, "--add", "--json")
    assert (code, told["added"], told["unchanged"]) == (0, 0, 9)
    page = tmp_path / "found.html"
    own = folder / "moss" / "moss_0.png"
    code, found = ran("search", index, "--image", own, "-k", 2, "-o", page, "--set", "collapse=1", "--json")
    assert code == 0
    assert len(found["hits"]) == 2
    assert str(own) not in [h["image"] for h in found["hits"]]
    assert page.read_text("utf-8").count("<figure") == 2
    code, found = ran("search", index, "--text", "sky", "--where-label", "sky", "--json", "--set", "collapse=1")
    assert {h["label"] for h in found["hits"]} == {"sky"}
    code, told = ran("index", "-o", index, "--forget", folder / "sky", "--json")
    assert (told["removed"], told["n"]) == (3, 6)


def test_the_index_of_a_trained_network_is_searched_with_its_model(tmp_path: Path) -> None:
    base, folder = seewhy.encoder("lite0"), class_folders(tmp_path / "pictures", 1, side=64)
    image = ImageCopy.before(base)
    with torch.no_grad():
        next(image.trunk.parameters()).mul_(1.1)
    network = TunedNetwork(base, image, Start())
    head, own = Head(Normalise(), torch.zeros(3, 1280), torch.zeros(3)), network.encoder()
    model = seewhy.Classifier("fine_tune", {}, own, CLASSES[:3], head, network=network).save(tmp_path / "model")
    shown = str(folder / "moss" / "moss_0.png")
    ran("index", folder, "-m", model, "-o", tmp_path / "index", "--store", "none", "--json")
    done = runner.invoke(app, ["search", str(tmp_path / "index"), "--encoder", str(model), "--image", shown])
    assert done.exit_code == 0
    ran("index", folder, "-m", model, "-o", tmp_path / "run", "--parquet", "--json")
    rows = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "run").to_pylist()
    vectors = {row["image"]: torch.tensor(row["embedding"]).float() for row in rows}
    (encoded,) = encode_stream(seewhy.load(model).encoder, [shown])
    torch.testing.assert_close(vectors["moss/moss_0.png"], encoded.pooled[0], rtol=0.01, atol=0.01)
