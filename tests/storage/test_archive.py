"""What is kept is whole or not there, is read with bounds, and everything that was kept before still loads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from seewhy.attributions.explainers import AttentionMechanism, TTAMEExplainer, load_explainer
from seewhy.errors import DataError, ForeignFileError, ModelError, WeightsError
from seewhy.retrieval.vectors import Whitening
from seewhy.storage.archive import FolderArchive, TensorArchive
from seewhy.storage.marks import Facts

KEPT = TensorArchive("holds no sums", "Sum again.", "There are no sums at {path}. Sum first.", format=3)
FOLDER = FolderArchive("sums.json", Facts(("format", "sums")), 2, "a folder of sums", "Sum in {folder}.", "sum again")
TENSORS = {"total": torch.arange(6.0).view(2, 3).T}
PLAIN = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
CARD = {"format": 3, "sums": "é"}


def both(card: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[str, Tensor]:
    return card["sums"], tensors["total"]


def test_a_file_gives_back_what_it_was_given_and_says_it_to_people(tmp_path: Path) -> None:
    path = KEPT.save(KEPT.check(tmp_path / "a.safetensors"), TENSORS, CARD, {"seewhy": "1", "method": "é"})
    said, total = KEPT.load(path, both)
    assert said == "é"
    assert torch.equal(total, TENSORS["total"])
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"seewhy": "1", "method": "é"}
    KEPT.save(KEPT.check(path), TENSORS, CARD, {"seewhy": "2", "method": "é"})  # its own are written over


def test_a_file_of_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    for name, theirs in (("b.safetensors", save(PLAIN)), ("b.json", b'{"my": "notes"}')):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(theirs)
        for write in (KEPT.check, lambda path: KEPT.save(path, TENSORS, CARD, {"seewhy": "1"})):
            with pytest.raises(ForeignFileError):
                write(folder / "b.safetensors")
        assert [p.name for p in folder.iterdir()] == [name]
        assert (folder / name).read_bytes() == theirs


def test_what_is_wrong_with_a_file_is_said_in_the_words_of_its_kind(tmp_path: Path) -> None:
    def refused(data: bytes | None, kind: type[Exception], archive: TensorArchive = KEPT) -> str:
        path = tmp_path / "c.safetensors"
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(kind) as caught:
            archive.load(path, both)
        return str(caught.value).replace(str(path), "HERE")

    assert refused(None, ModelError) == "There are no sums at HERE. Sum first."
    assert refused(None, FileNotFoundError, TensorArchive("x", "y"))
    assert refused(b"", WeightsError) == "HERE is damaged or holds no sums (it is empty). Sum again."
    newer = save(PLAIN, {"card": json.dumps({**CARD, "format": 4})})
    assert refused(newer, ModelError) == "HERE must have format 3, got 4. Update SeeWhy, or sum again."
    unsaid = save(PLAIN, {"card": '{"format": 3}'})
    assert refused(unsaid, WeightsError) == "HERE is damaged or holds no sums (it has no 'sums'). Sum again."
    assert refused(save(PLAIN), WeightsError) == "HERE is damaged or holds no sums (it has no 'card'). Sum again."
    own = TensorArchive("holds no sums", "Sum again.", error=DataError)
    assert refused(save(PLAIN), DataError, own) == "HERE is damaged or holds no sums (it has no 'sums'). Sum again."


def test_a_folder_names_its_tensors_by_their_digest_and_drops_the_old_ones(tmp_path: Path) -> None:
    folder = tmp_path / "sums"
    for n in (1.0, 2.0):
        data = save({"total": torch.tensor(n)})
        FOLDER.save(folder, {"format": 2, "sums": n}, data)
        card = FOLDER.load_card(folder)
        assert card == {"format": 2, "sums": n, "tensors": hashlib.sha256(data).hexdigest()}
        assert {p.name for p in folder.iterdir()} == {"sums.json", f"tensors-{card['tensors'][:16]}.safetensors"}
        assert float(FOLDER.checked_tensors(folder, card)["total"]) == n
    file = folder / FOLDER.tensors_file(card)
    file.write_bytes(save({"total": torch.tensor(3.0)}))
    with pytest.raises(WeightsError) as caught:
        FOLDER.checked_tensors(folder, card)
    assert str(caught.value) == (
        f"{file} is damaged (its SHA-256 differs from the one in sums.json). Copy the whole folder again, or sum again."
    )


def test_what_is_wrong_with_a_folder_is_said_in_the_words_of_its_kind(tmp_path: Path) -> None:
    def refused(card: object) -> str:
        (tmp_path / "sums.json").write_text(json.dumps(card))
        with pytest.raises(ModelError) as caught:
            FOLDER.checked_tensors(tmp_path, FOLDER.load_card(tmp_path))
        return str(caught.value).replace(str(tmp_path), "HERE")

    update = "Update SeeWhy with: pip install -U seewhy, or sum again."
    assert refused({"format": 3}) == f"HERE must have format 2, got 3. {update}"
    assert refused([]) == f"HERE must have format 2, got None. {update}"
    damaged = """HERE/sums.json is damaged (its tensors must have a SHA-256, got '../x'). Sum again."""
    assert refused({"format": 2, "tensors": "../x"}) == damaged
    (tmp_path / "sums.json").unlink()
    with pytest.raises(ModelError) as caught:
        FOLDER.load_card(tmp_path)
    said = f"{tmp_path} is not a folder of sums (sums.json: No such file or directory). Sum in {tmp_path}."
    assert str(caught.value) == said
    with pytest.raises(ForeignFileError) as foreign:
        FOLDER.save(tmp_path, {"format": 2}, b"")
    assert str(foreign.value) == f"{tmp_path} exists and is not a folder of sums. Give another name."


# Files as they were written before there was this room, by hand.


def test_an_explainer_of_before_loads_and_is_replaced(tmp_path: Path) -> None:
    mechanism = AttentionMechanism([4], 3, "t_tame").eval()
    about = {"format": 1, "seewhy": "0.1.0", "method": "t_tame", "variant": "t_tame", "layers": ["a"], "channels": [4]}
    card = {**about, "n_classes": 3, "fill": "mean", "classifier": "0" * 16, "trained": {}}
    path = tmp_path / "t_tame.safetensors"
    for facts in ({"card": json.dumps(card)}, {"seewhy": "0.1.0", "card": json.dumps(card)}):
        path.write_bytes(save(mechanism.state_dict(), facts))
        path.with_suffix(".json").write_text(json.dumps(card, indent=1))
        found = load_explainer(path)
        assert (found.layers, found.fill, found.classifier) == (("a",), "mean", "0" * 16)
        for name, tensor in mechanism.state_dict().items():
            assert torch.equal(found.mechanism.state_dict()[name], tensor)
    assert TTAMEExplainer(mechanism, ("a",), "mean", "0" * 16).save(tmp_path) == path


def test_a_whitening_of_before_loads(tmp_path: Path) -> None:
    path = tmp_path / "whitening-0a1b2c3d.safetensors"
    tensors = {"mean": torch.ones(3), "matrix": torch.eye(3)[:, :2].contiguous(), "power": torch.tensor(2.0)}
    for facts in (None, {"seewhy": "0.1.0"}):
        path.write_bytes(save(tensors, facts))
        found = Whitening.load(path)
        assert torch.equal(found.matrix, tensors["matrix"])
        assert (found.power, found.mean.tolist()) == (2.0, [1.0, 1.0, 1.0])
    with pytest.raises(FileNotFoundError):
        Whitening.load(tmp_path / "none.safetensors")
    path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"is damaged or no whitening \(.*\)\. Make the index again"):
        Whitening.load(path)
