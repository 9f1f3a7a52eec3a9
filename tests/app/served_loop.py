"""The page in a process of its own, which a test may kill: ``python served_loop.py DATA DECISIONS PORT``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from seewhy.classifiers.unfitted import Described
from seewhy.descriptions.base import Descriptions
from seewhy.language.annotation.labels import Corrections, LabelledData, open_decisions
from seewhy.pictures.samples import load_samples
from seewhy.service.app import Settings, make_app
from seewhy.service.app.serving import run
from tiny import CLASSES, tiny_cnn


def corrected(data: Path, decided: Path) -> Corrections:
    samples = load_samples(data)
    return Corrections(LabelledData(data, samples.items), open_decisions(decided, samples.classes))


def app_of(data: Path, decided: Path) -> Any:
    words = {label: [f"it looks like {label}"] for label in CLASSES}
    model = Described().build(tiny_cnn(), Descriptions.of(words))
    return make_app(model, data=load_samples(data), corrections=corrected(data, decided))


if __name__ == "__main__":
    data, decided, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    run(app_of(data, decided), Settings(port=port), lambda address: print(address, flush=True))
