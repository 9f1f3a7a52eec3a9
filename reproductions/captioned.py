"""Pictures with captions behind frozen towers: seen once, and two linear layers trained to bring them together."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import seewhy
from seewhy.encoders.base import Encoder
from seewhy.encoders.names import own_vectors
from seewhy.encoders.stream import Encoded, encode_stream
from seewhy.learning.contrast import Contrast, Drawn
from seewhy.learning.encoders.heads import SENTENCE_SCALE
from seewhy.learning.objectives.contrastive import Contrastive
from seewhy.pictures.samples import Samples
from seewhy.storage.features import FeatureStore, text_key
from seewhy.storage.output import write_atomic
from seewhy.training.batches import TrainingData
from seewhy.training.loop import Training, train

WIDTH = 256
BATCH = 512
RATE = 1.5e-3


@dataclass(frozen=True)
class Captioned:
    """What frozen towers see of pictures and their captions.

    Attributes:
        pooled: of the pictures, a row each.
        sentences: of all captions, a row each.
        said: of each picture, the rows of its captions.
    """

    pooled: Tensor
    sentences: Tensor
    said: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.said)

    def cut(self, rows: Sequence[int]) -> Captioned:
        """Some of the pictures."""
        return Captioned(self.pooled[torch.tensor(rows)], self.sentences, tuple(self.said[i] for i in rows))

    def saying(self, said: Sequence[Sequence[int]]) -> Captioned:
        """The same pictures with other captions."""
        return Captioned(self.pooled, self.sentences, tuple(tuple(one) for one in said))


def sentence_vectors(encoder: Encoder, texts: Sequence[str], store: FeatureStore | None) -> Tensor:
    """The sentences' own vectors, each made once and then remembered."""
    if store is None:
        return own_vectors(encoder.text, texts)
    keys = [text_key(t, f"sentences|{encoder.text.fingerprint}") for t in texts]
    known = store.get_texts(keys)
    missing = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
    for part in np.array_split(np.array(list(missing), dtype=object), max(1, len(missing) // 2048)):
        if len(part):
            fresh = dict(zip(part, own_vectors(encoder.text, [missing[k] for k in part]), strict=True))
            store.put_texts(fresh.items())
            known.update(fresh)
    return torch.stack([known[k] for k in keys])


def picture_vectors(encoder: Encoder, sources: Sequence[object], store: FeatureStore | None) -> Tensor:
    """Pooled features of pictures, all of which must be readable."""
    looked = list(encode_stream(encoder, sources, store=store))
    broken = [one for one in looked if not isinstance(one, Encoded)]
    if broken:
        raise SystemExit(f"{len(broken)} pictures cannot be read, the first: {broken[0]}. Leave them out.")
    return torch.cat([one.pooled[:1] for one in looked if isinstance(one, Encoded)])


def seen(encoder: Encoder, samples: Samples, store: FeatureStore | None) -> Captioned:
    """What the towers see of samples with texts."""
    texts, said = [], []
    for sample in samples.items:
        said.append(tuple(range(len(texts), len(texts) + len(sample.texts))))
        texts += sample.texts
    pooled = picture_vectors(encoder, [s.source for s in samples.items], store)
    return Captioned(pooled, sentence_vectors(encoder, texts, store), tuple(said))


class Centred(nn.Module):
    """Pictures less their mean, in units of one spread; then a linear layer."""

    def __init__(self, pooled: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(pooled.shape[1], WIDTH)
        self.register_buffer("mean", pooled.mean(0))
        self.register_buffer("spread", pooled.std(0).mean())

    def forward(self, pooled: Tensor) -> Tensor:
        return self.linear((pooled - self.mean) / self.spread)


class Scaled(nn.Module):
    """Sentences of unit length made larger; then a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, WIDTH)

    def forward(self, sentences: Tensor) -> Tensor:
        return self.linear(SENTENCE_SCALE * sentences)


@dataclass(frozen=True)
class Space:
    """What was trained: pictures and sentences in one space, of unit length."""

    picture: nn.Module
    sentence: nn.Module

    @torch.no_grad()
    def pictures(self, pooled: Tensor) -> Tensor:
        return normalize(self.picture(pooled), dim=1)

    @torch.no_grad()
    def texts(self, sentences: Tensor) -> Tensor:
        return normalize(self.sentence(sentences), dim=1)


def recipe(n_steps: int, seed: int, *, lr: float = RATE, batch: int = BATCH) -> Training:
    """How the layers are trained: AdamW, decay 0.1, a short warm-up, then a cosine."""
    return Training(n_steps, batch, lr=lr, weight_decay=0.1, schedule="cosine", warmup=min(20, n_steps // 5), seed=seed)


def learn(data: Captioned, objective: Contrastive, how: Training, labels: Tensor | None = None) -> Space:
    """Two linear layers trained on pictures, as many captions as the objective takes drawn of each at every step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        space = Space(Centred(data.pooled), Scaled(data.sentences.shape[1]))
    drawn = Drawn(data.said, lambda rows: data.sentences[torch.tensor(rows)], objective.n_texts)
    columns = {"pooled": data.pooled, "text": drawn} | ({} if labels is None else {"labels": labels})
    task = Contrast(space.picture, space.sentence, objective, column="pooled", labels=labels is not None)
    train(task, TrainingData(len(data), columns), how)
    return space


def found_by_caption(space: Space, test: Captioned, k: int = 5) -> list[float]:
    """Of each picture, the share of its captions that have it among their first k pictures: R@k before the mean."""
    pictures = space.pictures(test.pooled)
    owner = torch.tensor([i for i, said in enumerate(test.said) for _ in said])
    texts = space.texts(test.sentences[torch.tensor([row for said in test.said for row in said])])
    scores = texts @ pictures.T
    hit = ((scores > scores.gather(1, owner[:, None])).sum(1) < k).float()
    return [float(part.mean()) for part in hit.split([len(said) for said in test.said])]


def over_seeds(columns: Sequence[Sequence[float]]) -> list[float]:
    """Of each picture, the mean over trainings."""
    return np.mean(np.array(columns), 0).tolist()


def deranged(n: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Places of n things, a share of which have changed places so that none of these is where it was."""
    places = np.arange(n)
    moved = rng.permutation(n)[: round(share * n)]
    if len(moved) > 1:
        places[moved] = np.roll(moved, 1)
    return places


def planted(n: int, seed: int) -> Captioned:
    """Vectors without a picture: both sides see eight numbers of a thing, each in its own way and with noise."""
    draw = torch.Generator().manual_seed(seed)
    ways = torch.Generator().manual_seed(7)
    things = torch.randn(n, 8, generator=draw)
    pooled = things @ torch.randn(8, 32, generator=ways) + torch.randn(n, 32, generator=draw)
    twice = things.repeat_interleave(2, 0) @ torch.randn(8, 16, generator=ways)
    sentences = normalize(twice + 0.5 * torch.randn(2 * n, 16, generator=draw), dim=1)
    return Captioned(pooled, sentences, tuple((2 * i, 2 * i + 1) for i in range(n)))


def options(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """What scripts on captions have in common."""
    made.add_argument(
        "--pairs", type=Path, help="table of pictures with captions to train on; left out: planted vectors"
    )
    made.add_argument("--test", type=Path, help="another such table: its even pictures choose, its odd ones report")
    made.add_argument("--encoder", default="lite0", help="with words; frozen")
    made.add_argument("--store", type=Path, help="where what it saw is kept")
    made.add_argument("--steps", type=int, default=132, help=f"batches of {BATCH} pictures")
    made.add_argument("--seeds", type=int, default=3, help="trainings of each arm")
    made.add_argument("--n-planted", type=int, default=600, help="planted things, where no pairs are given")
    return made


@dataclass(frozen=True)
class Material:
    """What a script works on: the encoder where there are pictures, and three sets that share none."""

    encoder: Encoder | None
    store: FeatureStore | None
    train: Captioned
    choosing: Captioned
    reported: Captioned

    def about(self) -> str:
        """The pictures, for the report."""
        if self.encoder is None:
            return f"{len(self.train)} planted things, {len(self.choosing)} to choose, {len(self.reported)} to report"
        return (
            f"Flickr8k: {len(self.train)} training pictures; of the development pictures {len(self.choosing)} (even "
            f"rows) to choose and {len(self.reported)} (odd rows) to report"
        )


def material(args: argparse.Namespace) -> Material:
    """Of the options."""
    if args.pairs is None:
        train, test, encoder, store = planted(args.n_planted, 0), planted(args.n_planted // 2, 1), None, None
    else:
        encoder, store = seewhy.encoder(args.encoder), FeatureStore(args.store)
        train, test = (seen(encoder, seewhy.load_pairs(table), store) for table in (args.pairs, args.test))
    return Material(encoder, store, train, *(test.cut(range(start, len(test), 2)) for start in (0, 1)))


class Kept:
    """Arms that are finished, beside the report, so that a run that was stopped goes on."""

    def __init__(self, out: Path | None, settings: str) -> None:
        self.path = out and out.with_suffix(".part.json")
        self.settings = settings
        self.done: dict[str, Any] = json.loads(self.path.read_text("utf-8")) if self.path and self.path.exists() else {}
        self.seconds = 0.0

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """What was made under this name, or now is; plain numbers, lists and dictionaries."""
        key = f"{self.settings} {name}"
        if key not in self.done:
            begun = time.perf_counter()
            self.done[key] = [make(), round(time.perf_counter() - begun, 2)]
            if self.path:
                write_atomic(self.path, json.dumps(self.done))
        self.seconds += self.done[key][1]
        return self.done[key][0]
