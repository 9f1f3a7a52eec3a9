"""How long the score of interpretability takes: one encoder, class folders, features cached first.

    python benchmarks/interpretability.py PHOTOS [ENCODER]

Looks at all pictures and pieces once, then times the study with nothing noted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import seewhy
from seewhy.encoders.find import encoder as find
from seewhy.encoders.names import imagenet_descriptions
from seewhy.pictures.samples import load_samples
from seewhy.studies.concepts import LIBRARIES
from seewhy.studies.interpretability import InterpretabilityStudy


def main(folder: str, name: str = "lite0") -> None:
    samples, looks = load_samples(folder), find(name)
    texts = tuple(dict.fromkeys(t for lines in imagenet_descriptions().values() for t in lines))
    with tempfile.TemporaryDirectory() as place:
        store = seewhy.FeatureStore(Path(place) / "store.sqlite")
        for what in ("first, looking", "features cached"):
            start = time.perf_counter()
            found = InterpretabilityStudy().run([looks], samples, concepts=texts, store=store)
            print(f"{what}: {time.perf_counter() - start:.1f} s, {len(samples)} pictures, {len(LIBRARIES)} libraries")
        store.close()
    for row in found.data["rows"]:
        print(
            f"{row['library']}: IIS {row['iis']['value']:.3f} {row['iis']['interval']}, area {row['area']['value']:.3f}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
