"""Fit a classifier on pictures in class folders, save and load it, explain a picture, and evaluate.

The pictures are cut from three photographs of surfaces that come with scikit-image (CC0): brick, grass, gravel.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import skimage.data
from PIL import Image

import seewhy


def main(folder: Path) -> None:
    # The left half of each photograph is for fitting, the right half for testing.
    for label in ("brick", "grass", "gravel"):
        photo = Image.fromarray(getattr(skimage.data, label)())
        for i in range(16):
            left, top = 128 * (i // 4), 128 * (i % 4)
            path = folder / ("photos" if i < 8 else "test") / label / f"{label}-{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.crop((left, top, left + 128, top + 128)).save(path)
    descriptions = {
        "brick": ["a wall of rectangular blocks", "straight lines of mortar"],
        "grass": ["thin green blades", "a lawn"],
        "gravel": ["many small round stones", "a path of pebbles"],
    }

    classifier = seewhy.fit(folder / "photos", descriptions=descriptions, n_crops=2)
    classifier.save(folder / "surfaces")
    classifier = seewhy.load(folder / "surfaces")
    print(classifier)

    why = classifier.explain(folder / "test" / "gravel" / "gravel-9.png")
    print(f"{why.prediction.label} {why.prediction.score:.0%}")
    for evidence in (why.where, why.like, why.words):
        print(f"  {evidence.verdict.level}: {evidence.verdict.sentence}")
    for patch in why.like.neighbours[:3]:
        print(
            f"  region {patch.letter} is like {Path(patch.image).name} at {patch.box} (cosine {patch.similarity:.2f})"
        )
    print(f"  {why.agreement.sentence}")
    why.save(folder / "card.html")

    report = classifier.evaluate(folder / "test", n_explained=3)
    print(f"{report.accuracy:.0%} of {report.data['n']} test pictures are right")
    report.save(folder / "report.html")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
