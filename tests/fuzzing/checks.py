"""Contracts, checks, decisions and encoders in folders, and how each is read."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from readers import Target, colours, encoder, sealed

from tiny import class_folders


def _contract(folder: Path) -> None:
    from seewhy.studies.auditing.contract import Contract

    (folder / "audit.toml").write_text(Contract.preset().to_toml())


def _use_contract(folder: Path) -> None:
    from seewhy.studies.auditing.contract import Contract

    Contract.load(folder / "audit.toml").to_toml()


def _data(folder: Path) -> Path:
    return class_folders(folder / "data", 4)


def _checked(folder: Path) -> None:
    """A check of pictures of which two are one under two labels, and what two people decided on them."""
    from seewhy.language.annotation.labels import LabelDecisions, known_picture
    from seewhy.language.annotation.store import AnnotationStore
    from seewhy.pictures.samples import load_samples
    from seewhy.studies.inspection.check import Check

    data = _data(folder)
    first, second = sorted(p for p in data.iterdir() if p.is_dir())[:2]
    (second / "copy.png").write_bytes(next(iter(sorted(first.glob("*.png")))).read_bytes())
    found = Check().run(encoder(), load_samples(data).labelled())
    (folder / "check.json").write_text(json.dumps(found.data))
    store = AnnotationStore(folder / "decisions.sqlite")
    decisions = LabelDecisions(store, (first.name, second.name))
    picture = known_picture(str(second / "copy.png"))
    decisions.decide(picture, "ann", "changed", first.name, second.name, 0)
    decisions.decide(picture, "ben", "postponed", "", second.name, 1)
    decisions.undo(picture.key, "ann", 2)
    store.close()


def _use_check(folder: Path) -> None:
    from seewhy.language.annotation.labels import Corrections, LabelDecisions, LabelledData, write_corrected
    from seewhy.language.annotation.store import AnnotationStore
    from seewhy.pictures.samples import load_samples
    from seewhy.service.app.deciding import make_check_app
    from seewhy.studies.inspection.check import read_check, small_picture

    items = load_samples(folder / "data").items
    check = read_check(folder, folder / "data", items)
    store = AnnotationStore(folder / "decisions.sqlite")
    try:
        decisions = LabelDecisions(store, check["classes"])
        data = LabelledData(folder / "data", items)
        make_check_app(check, Corrections(data, decisions), small_picture)
        standing = decisions.standing()
        for key in standing:
            decisions.history(key)
        write_corrected(folder / "out.csv", data, standing)
    finally:
        store.close()


def _adapted(folder: Path) -> None:
    from seewhy.learning.encoders.adapted import Adaptation
    from seewhy.learning.encoders.heads import PairedHeads

    Adaptation(colours(), PairedHeads.before(colours(), 4), 0.5).save(folder / "e")


def _use_adapted(folder: Path) -> None:
    from seewhy.learning.encoders.adapted import load

    load(str(folder / "e"), base=colours()).encode_text(["red"])


def _timm(folder: Path) -> None:
    import timm
    from timm.models import save_for_hf

    save_for_hf(timm.create_model("test_vit", num_classes=3), folder / "t", safe_serialization=True)


def _use_timm(folder: Path) -> None:
    from seewhy.encoders.timm import load

    load(str(folder / "t"))


def checks() -> list[Target]:
    """What a team keeps beside its pictures."""
    return [
        Target("contract", _contract, _use_contract, own=True),
        Target("check", _checked, _use_check, ("check.json",), True),
        Target("decisions", _checked, _use_check, ("decisions.sqlite",), True),
        Target("adapted", _adapted, _use_adapted, ("e/*",), True, partial(sealed, "e/encoder.json")),
        Target("timm folder", _timm, _use_timm, ("t/config.json", "t/model.safetensors"), True),
    ]
