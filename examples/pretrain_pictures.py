"""Train a small network on pictures and their classes, and use it like any other encoder.

The pictures are cut from three photographs of surfaces that come with scikit-image (CC0): brick, grass, gravel.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import skimage.data
from PIL import Image

import seewhy

START = "new:resnet/32"


def main(folder: Path) -> None:
    # The upper half of each photograph is for training, the lower half for testing.
    for label in ("brick", "grass", "gravel"):
        photo = Image.fromarray(getattr(skimage.data, label)())
        for i in range(64):
            left, top = 64 * (i % 8), 64 * (i // 8)
            path = folder / ("photos" if i < 32 else "test") / label / f"{label}-{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.crop((left, top, left + 64, top + 64)).save(path)

    done = seewhy.pretrain(folder / "photos", START, objective="supcon", augmentation="crops", epochs=12, batch_size=32)
    done.save(folder / "encoder")
    first, last = done.done.history[0]["loss"], done.done.history[-1]["loss"]
    print(f"{len(done.train)} pictures, {len(done.done.history)} steps: loss {first:.2f} -> {last:.2f}")

    for name, start in (("before", START), ("after", str(folder / "encoder"))):
        classifier = seewhy.fit(folder / "photos", encoder=seewhy.encoder(start))
        report = classifier.evaluate(folder / "test", n_explained=0)
        print(f"{name}: {report.accuracy:.0%} of {report.data['n']} test pictures are right")

    why = classifier.explain(folder / "test" / "gravel" / "gravel-32.png")
    print(f"{why.prediction.label} {why.prediction.score:.0%}, where: {why.where.verdict.level}")
    why.save(folder / "card.html")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
