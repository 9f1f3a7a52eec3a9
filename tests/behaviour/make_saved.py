"""What an earlier version saved, and what it answers from it; ``python make_saved.py FOLDER`` makes it anew.

The folder beside this file was made at f086c5b. Later versions must load it and answer the same.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from made_pictures import COLOURS, class_folders, patch

import seewhy

MAY_DIFFER = ("measured", "deletion", "deletion_random", "insertion", "insertion_random")
"""What later parts changed on purpose before this was recorded: how faithfulness and detectors are measured."""


def _first(*names: str) -> Any:
    """A module by the first of its names that there is."""
    for name in names[:-1]:
        try:
            return importlib.import_module(f"seewhy.{name}")
        except ModuleNotFoundError:
            continue
    return importlib.import_module(f"seewhy.{names[-1]}")


def _annotations(path: Path) -> Any:
    return _first("annotation.store", "language.annotation.store").AnnotationStore(path)


def _index() -> Any:
    return _first("retrieval.index", "index.base").Index


def make(root: Path, pictures: Path) -> None:
    """Save one of everything."""
    sys.path.append(str(Path(__file__).parents[1]))
    from coloured import squares

    lite0 = seewhy.encoder("lite0", engine="torch")
    store = seewhy.FeatureStore(root / "store.sqlite")
    one = lite0.encode(lite0.pixels([np.zeros((224, 224, 3), np.uint8)]))
    store.put([(b"k" * 32, one.pooled[0], one.features[0, :64])])
    store.put_texts([(b"t" * 32, lite0.encode_text(["a patch of moss"])[0])])
    store.close()
    seewhy.fit(pictures, encoder=lite0, n_bank=4).save(root / "linear")
    seewhy.described({name: [f"the colour of {name}", f"a patch of {name}"] for name in COLOURS}, encoder=lite0).save(
        root / "described"
    )
    detector = seewhy.fit_detector(squares(pictures.parent / "squares"), lite0)
    _first("dense.saving").save_detector(detector, root / "detector")
    index = _index().create(root / "index", lite0)
    index.add([str(p) for p in sorted(pictures.rglob("*-[01].png"))])
    index.close()
    annotations = _annotations(root / "annotations.sqlite")
    records = _first("annotation.records", "language.annotation.records")
    annotations.add_pictures([records.Picture("moss-0", "0" * 64, "moss/moss-0.png", 48, 48)])
    annotations.seed("moss-0", "caption", "model", {"text": "A patch."})
    annotations.save("moss-0", "caption", "Ann", {"text": "A patch of green moss."}, 0, 3.5)
    thing = {"id": "a", "label": "moss", "box": [0.1, 0.2, 0.6, 0.9], "description": "soft", "attributes": ["colour"]}
    annotations.save("moss-0", "objects", "Ben", {"objects": [thing]}, 0, 7.0)
    annotations.close()


def answers(root: Path) -> dict[str, Any]:
    """What is read from the folder, as numbers; ``root`` is written to and should be a copy."""
    lite0 = seewhy.encoder("lite0", engine="torch")
    asked = [patch(name, 900 + i) for i, name in enumerate(COLOURS)]
    found: dict[str, Any] = {}
    for name in ("linear", "described"):
        predictions = seewhy.load(root / name, engine="torch").predict(asked)
        found[name] = [[p.label, [[ranked.label, ranked.score] for ranked in p.top]] for p in predictions]
    why = seewhy.load(root / "linear", engine="torch").explain(asked[1]).to_json()
    found["where"] = {
        k: v for k, v in why["where"].items() if k not in MAY_DIFFER and isinstance(v, str | float | list)
    }
    detector = seewhy.load_detector(root / "detector", engine="torch")
    boxes = detector.detect(asked[0])
    found["detector"] = {k: v for k, v in boxes.to_json().items() if k not in MAY_DIFFER}
    index = _index().open(root / "index", lite0)
    names, nearest = index.nearest(index.vectors()[3], 4)
    found["index"] = [len(index), [Path(n).name for n in names], nearest.scores.tolist()]
    index.close()
    store = seewhy.FeatureStore(root / "store.sqlite")
    ((pooled, features),) = store.get([b"k" * 32], features=True).values()
    (text,) = store.get_texts([b"t" * 32]).values()
    found["store"] = [float(values.double().sum()) for values in (pooled, features, text)]
    store.close()
    annotations = _annotations(root / "annotations.sqlite")
    found["annotations"] = {
        task: [
            {k: v for k, v in vars(version).items() if k != "made"} for version in annotations.versions("moss-0", task)
        ]
        for task in ("caption", "objects")
    }
    annotations.close()
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pictures = class_folders(Path(sys.argv[2]) / "classes", 4)
    make(folder, pictures)
    copy = Path(sys.argv[2]) / "copy"
    shutil.copytree(folder, copy)
    (folder / "answers.json").write_text(json.dumps(answers(copy), indent=1) + "\n")
