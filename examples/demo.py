"""What ``make demo`` runs: the embedded model explains a photograph of a cat, offline.

The photograph is Chelsea, by Stefan van der Walt, CC0; it comes with scikit-image.
Give a folder as the argument to write the card there instead of into ``demo/``.
"""

from __future__ import annotations

import io
import sys
import textwrap
from pathlib import Path

import skimage.data
from PIL import Image

import seewhy
from seewhy.storage.cache import cache_dir
from seewhy.storage.output import make_folder, write


def main(folder: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(skimage.data.chelsea()).save(file, "png")
    photo = write(make_folder(folder) / "chelsea.png", file.getvalue())

    if not any(cache_dir("weights").glob("lite0-*")):
        print("First run: converting the embedded model. This takes up to a minute, once.")
    why = seewhy.pretrained().explain(photo)

    print(f"\n{photo.name} is most likely: {why.prediction.label}\n")
    for label, score in why.prediction.top:
        print(f"  {label:<18} {'█' * round(30 * score):<30} {score:.0%}")
    for question, evidence in (("Where", why.where), ("Like what", why.like), ("In words", why.words)):
        if hasattr(evidence, "verdict"):
            show(question, evidence.verdict.level, evidence.verdict.sentence)
        else:
            show(question, "not here", f"{evidence.reason} {evidence.cure}")
    for word in getattr(why.words, "words", ())[:3]:
        print(f"  {word.label}: {word.text} ({word.score:+.2f})")

    print("\nThe card, in two forms:")
    for ending in ("html", "png"):
        print(f"  {why.save(folder / f'card.{ending}').resolve()}")
    print("\nNext: .venv/bin/seewhy explain YOUR_PHOTO.jpg -o why.html")


def show(question: str, level: str, sentence: str) -> None:
    print(f"\n{question}: {level}")
    print(textwrap.fill(sentence, 100, initial_indent="  ", subsequent_indent="  "))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
