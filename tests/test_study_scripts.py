"""Studies that are scripts of reproductions/ run from their command lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import seewhy
from seewhy.classifiers.unfitted import Described
from seewhy.descriptions import Descriptions
from tiny import class_folders, colours, tiny_cnn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproductions"))

import description_semantics
import edit_words
import projection_head_study
import real_or_generated

WORDS = {"moss": ["very green", "quite green"], "rust": ["very brown"], "sky": ["very blue"]}


def test_each_study_from_its_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    data, out = str(class_folders(tmp_path / "data", 8)), tmp_path / "found.json"
    words = tmp_path / "words.json"
    words.write_text(json.dumps(WORDS), "utf-8")
    spoken = Described(with_names=False).build(colours(), Descriptions.read(words))
    monkeypatch.setattr(seewhy, "load", lambda _: spoken, raising=False)
    monkeypatch.setattr(seewhy, "FeatureStore", lambda: None, raising=False)
    monkeypatch.setattr(seewhy, "encoder", lambda name: {"colours": colours, "tiny": tiny_cnn}[name](), raising=False)
    edited = edit_words.main(["model", data, "--replace", "very=hardly", "--set", "n_draws=50", "--out", str(out)])
    assert json.loads(out.read_text("utf-8")) == edited.data
    assert capsys.readouterr().out.startswith(edited.sentence)
    draws = ["--set", "n_draws=50", "--set", "n_noise=1", "--out", str(tmp_path / "found.html")]
    assert description_semantics.main([data, str(words), "-e", "colours", *draws]).data["arms"]
    assert "<html" in (tmp_path / "found.html").read_text("utf-8")
    with pytest.raises(seewhy.SeeWhyError, match=r"The heads .other. were given"):
        projection_head_study.main([data, "-e", "tiny", "--heads", "other"])
    with pytest.raises(seewhy.SeeWhyError, match=r"parts above 0 and below"):
        real_or_generated.main([data, "-e", "tiny", "--set", "held_out=1.5"])
