"""How often the glosses alone choose the right ImageNet class: the figure shown beside the embedded encoders' words.

    python benchmarks/embedded_words.py --imagenet FOLDER [--write]

FOLDER holds pictures named <synset>_<name>.jpg. With --write the figures go into the package, where cards read them.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path

import torch
from rich.console import Console

import seewhy
from seewhy.classifiers.base import HeldOut
from seewhy.classifiers.words import words_alone
from seewhy.encoders.names import imagenet_classes
from seewhy.encoders.stream import Encoded, encode_stream


def measure(name: str, folder: Path) -> dict[str, object]:
    """Top-1 of the network and of the glosses alone."""
    encoder = seewhy.encoder(name)
    index = {c.synset: i for i, c in enumerate(imagenet_classes())}
    pictures = sorted(str(p) for p in folder.glob("n*_*.jpg"))
    seen = [s for s in encode_stream(encoder, pictures) if isinstance(s, Encoded)]
    labels = torch.tensor([index[Path(s.name).name.split("_")[0]] for s in seen])
    pooled = torch.cat([s.pooled for s in seen])
    classifier = seewhy.pretrained(encoder)
    right = classifier.head.probabilities(pooled).argmax(1) == labels
    return {
        "accuracy": words_alone(classifier, HeldOut(pooled, labels)),
        "on": f"{len(seen)} ImageNet photographs that the network was probably trained on",
        "network": round(float(right.float().mean()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imagenet", type=Path, required=True)
    parser.add_argument("--encoders", default="lite0,lite1,lite2")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found = {name: measure(name, options.imagenet) for name in options.encoders.split(",")}
    Console().print_json(json.dumps(found))
    if options.write:
        Path(str(files("seewhy.encoders").joinpath("embedded_measures.json"))).write_text(
            json.dumps(found, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
