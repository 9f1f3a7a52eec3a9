"""Copies that ``seewhy check`` finds: of pictures changed in known ways, and among pictures that are merely alike.

Some pictures are changed in each way and compared with all: recall is the part of the changed ones told as a copy of
their own; "others" are pairs told of two pictures that are not the same one. Pairs told among the pictures as they are
come first, as a sheet to look at with ``--sheet``: whether they are copies, nobody has written down.

    python benchmarks/copies.py ../shared/data/fashion/test.csv --label-column subCategory --sheet pairs.jpg
"""

from __future__ import annotations

import argparse
import io
import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from seewhy.encoders.base import Encoder
from seewhy.encoders.find import encoder
from seewhy.encoders.stream import Encoded, EncodeRequest, encode_stream
from seewhy.pictures.samples import load_samples
from seewhy.pictures.sources import InMemory
from seewhy.storage.features import FeatureStore
from seewhy.studies.inspection.faults import Copy, find_copies

SHOWN, SIDE = 60, 112
"""Pairs on the sheet, and their side in pixels."""


def _saved(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=quality)
    return Image.open(buffer)


def _cut(picture: Image.Image, part: float, left: float = 0.5, top: float = 0.5) -> Image.Image:
    """Without a part of each side, of which so much lies at the left and at the top."""
    width, height = picture.size
    x, y = part * width, part * height
    return picture.crop((round(x * left), round(y * top), width - round(x * (1 - left)), height - round(y * (1 - top))))


def _cut_anywhere(picture: Image.Image, part: float) -> Image.Image:
    left, top = np.random.default_rng(zlib.crc32(picture.tobytes())).random(2).tolist()
    return _cut(picture, part, left, top)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved anew, quality 80": partial(_saved, quality=80),
    "saved anew, quality 50": partial(_saved, quality=50),
    "half the size": lambda picture: picture.resize((max(1, picture.width // 2), max(1, picture.height // 2))),
    "5 % cut off, anywhere": partial(_cut_anywhere, part=0.05),
    "10 % cut off, anywhere": partial(_cut_anywhere, part=0.1),
    "10 % cut off at a corner": partial(_cut, part=0.1, left=1, top=0),
    "10 % cut off each side": partial(_cut, part=0.2),
    "turned by 3°, black corners": lambda picture: picture.rotate(3, Image.Resampling.BICUBIC),
    "turned by 3°, corners cut off": lambda picture: _cut(picture.rotate(-3, Image.Resampling.BICUBIC), 0.1),
    "mirrored": ImageOps.mirror,
    "turned by 90°": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    "turned by 180°": lambda picture: picture.transpose(Image.Transpose.ROTATE_180),
    "turned by 270°": lambda picture: picture.transpose(Image.Transpose.ROTATE_270),
    "at 80 % of the brightness": lambda picture: ImageEnhance.Brightness(picture).enhance(0.8),
    "at 130 % of the brightness": lambda picture: ImageEnhance.Brightness(picture).enhance(1.3),
}


def changed(name: str, how: str) -> Image.Image:
    return CHANGES[how](Image.open(name).convert("RGB"))


def looked_at(eyes: Encoder, pictures: list[str] | list[InMemory]) -> list[Encoded]:
    """What is kept of pictures, all of which must be readable."""
    stream = encode_stream(eyes, pictures, store=FeatureStore(), request=EncodeRequest(miniatures=True))
    seen = [one for one in stream if isinstance(one, Encoded)]
    assert len(seen) == len(pictures)
    return seen


def copies(seen: list[Encoded], n_own: int | None = None) -> tuple[Copy, ...]:
    pooled, small = torch.stack([one.pooled[0] for one in seen]), [one.miniature for one in seen]
    return find_copies(pooled, [m for m in small if m is not None], [one.digest for one in seen], n_own)


def sheet(path: Path, pairs: list[tuple[str, str]]) -> None:
    """Pairs side by side, six to a row."""
    rows = -(-len(pairs) // 6)
    page = Image.new("RGB", (6 * (2 * SIDE + 12), rows * (SIDE + 8)), "white")
    for k, pair in enumerate(pairs):
        for j, name in enumerate(pair):
            small = Image.open(name).convert("RGB").resize((SIDE, SIDE))
            page.paste(small, ((k % 6) * (2 * SIDE + 12) + j * SIDE, (k // 6) * (SIDE + 8)))
    page.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="class folders, or a table")
    parser.add_argument("--encoder", default="lite0")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--most", type=int, default=600, help="pictures that are looked at")
    parser.add_argument("--changed", type=int, default=60, help="of these, are changed in each way")
    parser.add_argument("--seed", type=int, default=0, help="of which pictures are looked at")
    parser.add_argument("--sheet", type=Path, help="where pairs among the pictures as they are can be looked at")
    given = parser.parse_args()
    samples, eyes = load_samples(given.data, label=given.label_column), encoder(given.encoder)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(given.seed))[: given.most].tolist()
    names = [samples.items[i].image for i in order]
    seen = looked_at(eyes, names)
    within = copies(seen)
    chosen = names[: given.changed]
    same = sum(c.same_bytes for c in within)
    print(f"{len(names)} pictures, {len(within)} pairs told among them, {same} of the same bytes")
    if given.sheet is not None and within:
        pick = np.random.default_rng(0).permutation(len(within))[:SHOWN]
        sheet(given.sheet, [(names[within[i].first], names[within[i].second]) for i in sorted(pick.tolist())])
    twins = {(c.first, c.second) for c in within} | {(c.second, c.first) for c in within}
    print("\n| changed | recall | others |\n|---|---|---|")
    for how in CHANGES:
        anew = looked_at(eyes, [InMemory(f"{name} {how}", partial(changed, name, how)) for name in chosen])
        told = [(c.first, c.second - len(names)) for c in copies(seen + anew, len(names))]
        across = Counter(own == new for own, new in told if new >= 0 and (own, new) not in twins)
        print(f"| {how} | {across[True] / len(chosen):.0%} | {across[False]} |", flush=True)


if __name__ == "__main__":
    main()
