"""How well words find pictures in the embedded encoder: classes never seen with words, and captioned stamps.

    python benchmarks/text_space.py --imagenet FOLDER [--stamps FOLDER] [--json]

FOLDER of --imagenet holds pictures named <synset>_<name>.jpg. The stamps are Debian's tuxpaint-stamps-default.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import normalize

from seewhy.encoders.base import Encoder
from seewhy.encoders.embedded import TextSpace, load
from seewhy.encoders.minilm import load_minilm
from seewhy.encoders.names import imagenet_classes, imagenet_texts
from seewhy.pictures.images import read_picture

NOT_PHOTOGRAPHS = {"cartoon", "symbols", "people", "space"}
Row = dict[str, str | float | int]


def pooled(encoder: Encoder, sources: Sequence[Path | Image.Image], batch_size: int = 16) -> Tensor:
    """Pooled features of pictures."""
    out = []
    for start in range(0, len(sources), batch_size):
        pictures = [read_picture(s, encoder.transform).pixels for s in sources[start : start + batch_size]]
        out.append(encoder.encode(encoder.pixels(pictures)).pooled)
    return torch.cat(out)


def unseen_classes(encoder: Encoder, folder: Path, n_splits: int = 5) -> list[Row]:
    """Top-1 among 200 classes whose texts and rows took no part in the fit."""
    files = sorted(folder.glob("n*_*.jpg"))
    index = {c.synset: i for i, c in enumerate(imagenet_classes())}
    truth = torch.tensor([index[file.name.split("_")[0]] for file in files])
    pictures = pooled(encoder, files)
    assert encoder.classifier is not None
    weight, vectors = encoder.classifier.weight, _Memo()
    asked = {
        "names": [", ".join(c.names) for c in imagenet_classes()],
        "names and definition": [f"{', '.join(c.names)}: {c.gloss}" for c in imagenet_classes()],
    }
    single = [[text] for text in asked["names"]]
    fits = {"as fitted": (imagenet_texts(), 0.5), "control: names only, nearly linear": (single, 5.0)}
    vectors([text for own in imagenet_texts() for text in own] + [text for own in asked.values() for text in own])
    rows: list[Row] = []
    for fit, (texts, width) in fits.items():
        for query, words in asked.items():
            scores = []
            for seed in range(n_splits):
                order = torch.randperm(1000, generator=torch.Generator().manual_seed(seed))
                seen, unseen = order[:800].tolist(), order[800:].tolist()
                space = TextSpace.fit(weight[seen], [texts[i] for i in seen], vectors, width=width)
                targets = space.encode_text([words[i] for i in unseen])
                of = torch.isin(truth, order[800:])
                found = torch.tensor(unseen)[(space.project(pictures[of]) @ targets.T).argmax(1)]
                scores.append((found == truth[of]).double().mean())
            mean, spread = torch.stack(scores).mean().item(), torch.stack(scores).std().item()
            rows.append({"fit": fit, "query": query, "top1": mean, "sd": spread, "n_splits": n_splits})
    return [*rows, {"fit": "control: chance", "query": "", "top1": 1 / 200, "sd": 0.0, "n_splits": n_splits}]


class _Memo:
    """Sentence vectors, each computed once."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        new = list(dict.fromkeys(text for text in texts if text not in self.kept))
        self.kept.update(zip(new, load_minilm().encode(new), strict=True))
        return torch.stack([self.kept[text] for text in texts])


def stamps(encoder: Encoder, folder: Path) -> list[Row]:
    """Recall at 1, 5, 10 of the stamp by its caption; any stamp with the same caption counts in the second row."""
    files = [f for f in sorted(folder.rglob("*.png")) if f.with_suffix(".txt").is_file()]
    files = [f for f in files if not NOT_PHOTOGRAPHS & set(f.relative_to(folder).parts)]
    captions = [f.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[0].strip() for f in files]
    pictures = normalize(encoder.text.project(pooled(encoder, [_on_white_square(f) for f in files])), dim=1)
    scores = encoder.encode_text(captions) @ pictures.T
    same = torch.tensor([[a == b for b in captions] for a in captions])
    own = torch.eye(len(files), dtype=torch.bool)
    shuffled = own[torch.randperm(len(files), generator=torch.Generator().manual_seed(0))]
    kinds = {"its own stamp": own, "a stamp with its caption": same, "control: shuffled captions": shuffled}
    return [{"hit": kind, **_recall(scores, right), "n": len(files)} for kind, right in kinds.items()]


def _recall(scores: Tensor, right: Tensor) -> Row:
    best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    rank = (scores.masked_fill(right, -torch.inf) > best).sum(1)
    return {f"R@{k}": (rank < k).double().mean().item() for k in (1, 5, 10)}


def _on_white_square(file: Path) -> Image.Image:
    """Stamps are cut-outs without a background of their own: white, and square against cropping."""
    with Image.open(file) as opened:
        image = opened.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    side = max(image.size)
    return ImageOps.pad(white.convert("RGB"), (side, side), color="white")


def show(title: str, rows: list[Row]) -> None:
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*(f"{100 * v:.1f} %" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imagenet", type=Path, help="pictures named <synset>_<name>.jpg")
    parser.add_argument("--stamps", type=Path, default=Path("/usr/share/tuxpaint/stamps"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    encoder, result, missing = load("lite0"), {}, []
    if args.imagenet and next(args.imagenet.glob("n*_*.jpg"), None):
        result["200 classes without words"] = unseen_classes(encoder, args.imagenet)
    else:
        missing.append("Unseen classes: no picture named <synset>_<name>.jpg was found. Pass their folder: --imagenet.")
    if args.stamps.is_dir():
        result["stamps by caption"] = stamps(encoder, args.stamps)
    else:
        missing.append(
            f"Stamps: {args.stamps} is not a folder. Install Debian's tuxpaint-stamps-default or pass --stamps."
        )
    if args.json:
        print(json.dumps({**result, "missing": missing}, indent=1))
        return
    for title, rows in result.items():
        show(title, rows)
    for line in missing:
        print(line)


if __name__ == "__main__":
    main()
