"""How often drift is told of pictures: as they are, and noisy, resampled, brighter or of other classes.

All pictures are looked at once; sets of them are drawn many times. Where nothing has changed, both sides are drawn anew
from all pictures. Where something has, the new side is drawn from a half of them of which changed versions were looked
at too, so that its draws overlap. Classes: "half of them twice as often" draws pictures of a random half of the classes
with twice the weight, "half of them missing" only pictures of one half.

    python benchmarks/drift.py ../shared/data/grocery/train
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seewhy.classifiers.known_pictures import KnownPictures
from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.pictures.samples import load_samples
from seewhy.pictures.sources import InMemory
from seewhy.storage.features import FeatureStore
from seewhy.studies.auditing.drift import DriftTest
from seewhy.studies.transfer import CORRUPTIONS, Corruption, read_small

CHANGES = ("noise", "resampling", "brightness")
ALPHAS = (0.01, 0.05)
WEIGHTS = {"half of the classes twice as often": 2.0, "half of the classes missing": 0.0}


def changed(names: list[str]) -> Iterator[tuple[str, list[InMemory]]]:
    """Each change at its mild and its middle level, and the pictures with it."""
    for one in CORRUPTIONS:
        for level in one.levels[:2] if one.name in CHANGES else ():
            yield f"{one.name} {level:g}", [InMemory(n, partial(_made, one, level, n, i)) for i, n in enumerate(names)]


def _made(one: Corruption, level: float, name: str, seed: int) -> np.ndarray:
    return one(read_small(name), level, seed)


def pooled(eyes: Encoder, pictures: list[str] | list[InMemory]) -> Tensor:
    """Features ``(n, d)``; all must be readable."""
    seen = [one.pooled[0] for one in encode_stream(eyes, pictures, store=FeatureStore()) if isinstance(one, Encoded)]
    assert len(seen) == len(pictures)
    return torch.stack(seen)


def by_weight(labels: Tensor, times: float, n: int, draw: torch.Generator) -> Tensor:
    """Places of ``n`` pictures, those of a random half of the classes drawn with ``times`` the weight."""
    classes = labels.unique()
    half = classes[torch.randperm(len(classes), generator=draw)[: len(classes) // 2]]
    weights = torch.where(torch.isin(labels, half), times, 1.0)
    return torch.multinomial(weights, min(n, int((weights > 0).sum())), generator=draw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="labelled pictures: class folders, or a table")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--most", type=int, default=600, help="pictures that are looked at")
    parser.add_argument("--known", type=int, default=200, help="pictures fitted on")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 50, 200])
    parser.add_argument("--draws", type=int, default=100)
    given = parser.parse_args()
    samples, eyes = load_samples(given.data), encoder(given.encoder)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[: given.most].tolist()
    items = [samples.items[i] for i in order]
    names, labels = [s.image for s in items], torch.tensor([samples.classes.index(s.label) for s in items])
    plain, half = pooled(eyes, names), len(items) // 2
    versions = {name: pooled(eyes, pictures) for name, pictures in changed(names[half:])}
    sides: dict[str, Callable[[int, torch.Generator], tuple[Tensor, Tensor]]] = {}

    def anew(n: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        both = torch.randperm(len(plain), generator=draw)
        return plain[both[: given.known]], plain[both[given.known : given.known + n]]

    def of(version: Tensor, n: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        known = torch.randperm(half, generator=draw)[: given.known]
        return plain[known], version[torch.randperm(len(version), generator=draw)[:n]]

    def shares(times: float, n: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        known = torch.randperm(half, generator=draw)[: given.known]
        return plain[known], plain[half:][by_weight(labels[half:], times, n, draw)]

    sides["nothing"] = anew
    sides |= {name: partial(of, version) for name, version in versions.items()}
    sides |= {name: partial(shares, times) for name, times in WEIGHTS.items()}
    print(
        f"| changed | {' | '.join(f'{n} pictures' for n in given.sizes)} |\n|---|{'---|' * len(given.sizes)}",
        flush=True,
    )
    for name, side in sides.items():
        cells = []
        for n in given.sizes:
            p = torch.tensor([_p(side, n, i) for i in range(given.draws)])
            cells.append(" / ".join(f"{float((p < alpha).double().mean()):.0%}" for alpha in ALPHAS))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(json.dumps({**vars(given), "data": str(given.data), "pictures": len(items), "alphas": ALPHAS}))


def _p(side: Callable[[int, torch.Generator], tuple[Tensor, Tensor]], n: int, seed: int) -> float:
    """Of one draw, as the command has it."""
    known, new = side(n, torch.Generator().manual_seed(seed))
    kept = KnownPictures.of([""] * len(known), ["00" * 32] * len(known), known, "")
    return DriftTest(seed=seed).compare(kept, new).p


if __name__ == "__main__":
    main()
