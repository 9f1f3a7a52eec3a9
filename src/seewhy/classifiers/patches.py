"""Evidence of what is like what: patches of pictures that a classifier was fitted on, measured on others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..encoders.stream import Encoded, EncodeRequest, encode_stream
from ..progress import Progress
from ..prototypes.bank import PatchBank
from ..prototypes.measure import Labelled, LikenessMeasure, Trial, trials
from ..prototypes.nearest import NearestPatches
from ..storage.features import FeatureStore
from .base import Classifier
from .holdout import Pictures, spread


def patch_evidence(
    trial: Classifier,
    final: Classifier,
    pictures: Pictures,
    n_bank: int,
    store: FeatureStore | None,
    progress: Progress,
    *,
    decided: Mapping[int, int] | None = None,
) -> dict[str, Any]:
    """The bank of patches, and how far it can be trusted: by held-out pictures, whose fold is left out of the bank."""
    parts = (pictures.final, ~pictures.final)
    chosen = [i for part in parts for i in spread(pictures.labels.tolist(), part.tolist(), n_bank)]
    found = {i: pictures.seen[i] for i in chosen if pictures.seen_by == final.encoder.fingerprint}
    found = {i: s for i, s in found.items() if s.features is not None and s.picture is not None}
    missing = [i for i in chosen if i not in found]
    request = EncodeRequest(features=lambda _index: True, pictures=True)
    stream = encode_stream(final.encoder, [pictures.items[i].source for i in missing], store=store, request=request)
    looked = list(progress.track(stream, "Keeping patches", len(missing)))
    found |= {i: s for i, s in zip(missing, looked, strict=True) if isinstance(s, Encoded)}
    kept = [i for i in chosen if i in found and bool(pictures.final[i])]
    if not kept:
        return {"bank": None}
    bank = PatchBank.build(final, [found[i] for i in kept], [int(pictures.labels[i]) for i in kept])
    if decided is None:
        with torch.no_grad():
            asked = [i for i in found if bool(pictures.held[i])]
            decided = {i: int(trial.head(found[i].pooled[:1]).argmax()) for i in asked}
    folds = pictures.held.long() if pictures.folds is None or pictures.validation else pictures.folds
    known = {i: Labelled(found[i], int(pictures.labels[i]), k) for i, k in decided.items() if i in found}
    made: list[Trial] = []
    for fold in sorted({int(folds[i]) for i in known}):
        others = bank.without(folds[kept] == fold)
        if others.pictures:
            mine = [one for i, one in known.items() if int(folds[i]) == fold]
            made += trials(final, NearestPatches(), others, progress.track(mine, "Measuring", len(mine)), len(known))
    return {"bank": bank, "likeness": LikenessMeasure.of(made)}
