"""Save and load classifiers as safetensors and JSON, checking untrusted files on loading."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors.torch import save as save_tensors
from torch import Tensor

from ..arguments import checked
from ..descriptions.base import WordBank
from ..encoders.base import Encoder
from ..encoders.engines import PRECISIONS
from ..encoders.find import CLASSIFIER, encoder_in
from ..errors import ModelError
from ..heads.head import Feature, Head, Projected
from ..heads.normalise import Normalise
from ..heads.votes import Votes, WordDecision
from ..prototypes.bank import (
    PatchBank,
    check_patches,
    joined_thumbnails,
    listed,
    pictures_of,
)
from ..prototypes.measure import LikenessMeasure
from ..storage.archive import FolderArchive
from ..storage.marks import Facts
from ..storage.parts import check_axes, check_finite, check_index, rebuilt, tensors_of
from ..storage.tensors import compact, tensors_digest
from ..trust.base import Trust
from ..trust.measure import trust_features
from . import classifiers
from .base import Classifier, HeldOut
from .known_pictures import KnownPictures
from .network import Network, ReadsPooled

FORMAT = 2
CARD = CLASSIFIER
MAX_LOGIT = 60000.0
"""Maximum of half precision, rounded down."""
ARCHIVE = FolderArchive(
    CARD,
    Facts(("format", "seewhy", "recipe", "encoder")),
    format=FORMAT,
    kind="a saved SeeWhy classifier",
    make="Make one with: seewhy fit PHOTOS -o {folder}",
    again="fit the classifier again",
)
OUTPUTS = replace(
    ARCHIVE,
    card="outputs.json",
    facts=Facts(("format", "seewhy", "kind", "decisions")),
    kind="a saved SeeWhy model of several decisions",
    make="Make one with: seewhy fit TABLE -o {folder} --task labels",
    again="fit the model again",
)
"""The card of a model that makes several decisions, each of them a classifier in a subfolder."""
SHARED = "encoder"
"""Subfolder of such a model with the encoder that was trained for all its decisions, if there is one."""
PLAIN = {"parameters": dict, "measures": dict, "decided_by_words": bool, "words_accuracy_on": str, "trained_on": str}
"""Fields of the card that are stored unchanged, with their types."""
HALVES = ("gaussian.within", "gaussian.among", "strangeness.posteriors")
"""Tensors of the trust measures that may be float16; they are computed with as float32."""
Tensors = dict[str, Tensor]


def save(classifier: Classifier, folder: Path) -> Path:
    """Write the card as JSON, and the tensors in a file named by its SHA-256; an earlier classifier is replaced."""
    fitted_in = classifier.fitted_in or classifier.encoder.engine.precision
    return ARCHIVE.save(folder, {**_card(classifier), "fitted_in": fitted_in}, save_tensors(_tensors(classifier)))


def digest(classifier: Classifier) -> str:
    """Return the SHA-256 of everything that :func:`save` writes, except the precision."""
    card = json.dumps(_card(classifier), sort_keys=True)
    return hashlib.sha256(f"{card}|{tensors_digest(_tensors(classifier))}".encode()).hexdigest()


def _card(c: Classifier) -> dict[str, Any]:
    feature, votes = c.head.feature, c.head.votes
    kind: dict[str, Any] = {"kind": "network" if isinstance(c.network, ReadsPooled) else "projected"}
    if isinstance(feature, Normalise):
        kind = {"kind": "normalise", **vars(feature)}
    return {
        "format": FORMAT, "seewhy": version("seewhy"), "recipe": c.recipe,
        "encoder": c.base.describe(),
        "network": c.network and c.network.facts(), "classes": list(c.classes), "feature": kind, "scale": c.head.scale,
        "votes": {"k": votes.k, "names": list(votes.names)} if isinstance(votes, Votes) else None,
        "reranking": votes.facts() if isinstance(votes, WordDecision) else None,
        "words": None if c.words is None else {"texts": list(c.words.texts)}, "words_accuracy": c.words_accuracy,
        "likeness": None if c.likeness is None else c.likeness.to_json(),
        "bank": None if c.bank is None else listed(c.bank.pictures),
        "known": None if c.known is None else c.known.facts(), "trust": None if c.trust is None else c.trust.facts(),
        **{name: getattr(c, name) for name in PLAIN},
    }  # fmt: skip


def _tensors(c: Classifier) -> Tensors:
    tensors = {"head.weight": c.head.weight, "head.bias": c.head.bias}
    if isinstance(c.head.votes, Votes):
        tensors["head.owner"] = c.head.votes.owner
    elif c.head.votes is not None:
        tensors |= {f"reranking.{name}": tensor for name, tensor in c.head.votes.tensors().items()}
    for name, part in (("network", c.network), ("trust", c.trust)):
        tensors |= {} if part is None else {f"{name}.{key}": tensor for key, tensor in part.tensors().items()}
    for name, fields in (("words", c.words), ("known", c.known)):
        tensors |= {} if fields is None else tensors_of(fields, f"{name}.")
    if (held := c.held_out) is not None:
        logits = None if held.logits is None else held.logits.clamp(-MAX_LOGIT, MAX_LOGIT).half()
        tensors |= tensors_of(replace(held, pooled=compact(held.pooled), logits=logits, before=None), "held_out.")
    if (bank := c.bank) is not None:
        small = replace(bank, pooled=compact(bank.pooled), vectors=compact(bank.vectors))
        tensors |= tensors_of(small, "bank.") | {"bank.thumbnails": joined_thumbnails(bank.pictures)}
    return {k: v.contiguous() for k, v in tensors.items()}


def shared_in(folder: Path) -> Path | None:
    """Return the folder of the encoder that was trained for all decisions of a model, if it has one."""
    is_tuned = OUTPUTS.is_one(folder) and OUTPUTS.load_card(folder).get("tuned") is True
    return folder / SHARED if is_tuned else None


@checked
def load(folder: str | Path, *, engine: str = "auto", encoder: Encoder | str | None = None) -> Classifier:
    """Load a saved classifier.

    Args:
        folder: folder written by :meth:`Classifier.save`.
        engine: engine that runs the encoder: ``"auto"``, ``"torch"``, ``"onnxruntime"`` or ``"openvino"``.
        encoder: encoder that the classifier was fitted with, or its name. Default: the embedded encoder named in the
            folder; any other encoder must be given here.

    Raises:
        ModelError: the folder has no saved classifier or a newer format, or the classifier was fitted with another
            encoder.
        WeightsError: the tensors are damaged.
    """
    folder = Path(folder)
    if encoder is None and (shared := shared_in(folder.parent)) is not None:
        encoder = str(shared)
    if OUTPUTS.is_one(folder):
        each = ", ".join(str(folder / one["folder"]) for one in OUTPUTS.load_card(folder)["decisions"])
        raise ModelError(f"{folder} makes several decisions. Give one of them: {each}. Or use seewhy.load_multi.")
    command = f"seewhy predict … -m {shlex.quote(str(folder))} --encoder {{}}"
    card, base = encoder_in(ARCHIVE, folder, encoder, engine=engine, command=command)
    tensors = ARCHIVE.checked_tensors(folder, card)
    with ARCHIVE.reading(folder):
        check_finite(tensors)
        # An absolute folder, since the user may go to another one before its explainers are looked for.
        _check(classifier := replace(_assemble(card, tensors, base), folder=folder.absolute()))
    return classifier


def _own(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _assemble(card: dict[str, Any], tensors: Tensors, base: Encoder) -> Classifier:
    """Build the classifier from its card and tensors."""
    network, classes, words, bank = None, tuple(card["classes"]), None, None
    if card["network"] is not None:
        kind = classifiers[card["recipe"]].network
        if kind is None:
            raise ValueError(f"{card['recipe']} trains no network")
        network = kind.restore(base, card["network"], _own(tensors, "network."))
    encoder = base if network is None else network.encoder()
    if not isinstance(card["recipe"], str) or not all(isinstance(label, str) for label in classes):
        raise TypeError("the name of the recipe or of a class is not a text")
    for name, plain in PLAIN.items():
        if not isinstance(card[name], plain):
            raise TypeError(f"{name} is {card[name]!r}")
    held = _held_out(tensors, len(classes))
    if card["words"] is not None:
        texts = tuple(card["words"]["texts"])
        words = rebuilt(WordBank, tensors, "words.", {"n": len(texts)}, classes=classes, texts=texts)
        check_index("the class indices of the descriptions", words.owner, len(classes))
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a description is not a text")
    if card["bank"] is not None:
        pictures = pictures_of(card["bank"], tensors["bank.thumbnails"])
        bank = rebuilt(PatchBank, tensors, "bank.", {"m": len(pictures)}, pictures=pictures)
        bank = replace(bank, pooled=bank.pooled.float(), vectors=bank.vectors.float())
    if (fitted_in := card["fitted_in"]) not in ("", *PRECISIONS.values()):
        raise ValueError(f"the precision of its fit is {fitted_in!r}")
    trust = None
    if card["trust"] is not None and held is not None:
        own = {
            n: t if n in HALVES or not t.is_floating_point() else t.float() for n, t in _own(tensors, "trust.").items()
        }
        trust = Trust.restore(card["trust"], own, trust_features(held.pooled), len(classes))
    return Classifier(
        recipe=card["recipe"],
        encoder=encoder,
        classes=classes,
        head=_head(card, tensors, encoder, network),
        words=words,
        bank=bank,
        likeness=LikenessMeasure.restore(card["likeness"]),
        held_out=held,
        words_accuracy=card["words_accuracy"],
        network=network,
        known=None if card["known"] is None else KnownPictures.restore(card["known"], tensors),
        fitted_in=fitted_in,
        trust=trust,
        **{name: card[name] for name in PLAIN},
    )


def _head(card: dict[str, Any], tensors: Tensors, encoder: Encoder, network: Network | None) -> Head:
    weight, bias, k = tensors["head.weight"], tensors["head.bias"], len(card["classes"])
    scale, votes, facts = float(card["scale"]), card["votes"], card["reranking"]
    check_axes("head.weight", weight, Float[Tensor, "r d"], {})
    check_axes("head.bias", bias, Float[Tensor, " k"], {})
    if not math.isfinite(scale):
        raise ValueError(f"the logit scale is {scale}")
    decides: Votes | WordDecision | None = None
    n_rows = k
    if votes is not None:
        decides = Votes(tensors["head.owner"], k, int(votes["k"]), tuple(votes["names"]))
        check_index("the class indices of the rows", decides.owner, k)
        n_rows = len(decides.owner)
        if decides.names and len(decides.names) != n_rows:
            raise ValueError(f"{len(decides.names)} names for {n_rows} rows")
    elif facts is not None:
        kind = classifiers[card["recipe"]].reranking
        if kind is None:
            raise ValueError(f"{card['recipe']} has no reranking")
        decides = kind.restore(facts, _own(tensors, "reranking."), weight)
        n_rows = len(weight)
    if bias.shape != (k,) or (decides is not None and decides.n_classes != k):
        raise ValueError(f"{k} classes, but {len(bias)} biases")
    if len(weight) != n_rows:
        raise ValueError(f"weights of shape {tuple(weight.shape)}, but {n_rows} rows")
    return Head(_feature(card["feature"], encoder, network), weight.float(), bias.float(), scale, decides)


def _feature(facts: dict[str, Any], encoder: Encoder, network: Network | None) -> Feature:
    if facts["kind"] == "network":
        if not isinstance(network, ReadsPooled):
            raise ValueError("its network is missing")
        return network.feature()
    if facts["kind"] == "normalise":
        return Normalise(float(facts["power"]), bool(facts["l2"]))
    return Projected(encoder.text)


def _held_out(tensors: Tensors, k: int) -> HeldOut | None:
    if "held_out.pooled" not in tensors:
        return None
    held = rebuilt(HeldOut, tensors, "held_out.", {"k": k})
    check_index("the class indices of the held-out pictures", held.labels, k)
    return replace(held, pooled=held.pooled.float(), logits=None if held.logits is None else held.logits.float())


def _check(c: Classifier) -> None:
    """Check that all vectors of one feature space have the same width."""
    if c.words_accuracy is not None and not (isinstance(c.words_accuracy, int | float) and 0 <= c.words_accuracy <= 1):
        raise ValueError(f"`words_accuracy` must be from 0 to 1, got {c.words_accuracy!r}")
    if c.bank is not None:
        check_patches(c.bank, len(c.classes))
    pooled = [] if c.held_out is None else [c.held_out.pooled]
    joint = [] if c.words is None else [c.words.vectors]
    (pooled if isinstance(c.head.feature, Normalise) else joint).append(c.head.weight)
    if c.bank is not None and c.network is None:  # a network's bank may come from its original encoder
        pooled.append(c.bank.pooled)
    for tensors in (pooled, joint):
        if len({t.shape[1] for t in tensors}) > 1:
            raise ValueError(f"different widths: {', '.join(str(tuple(t.shape)) for t in tensors)}")
