"""A saved classifier: a folder of safetensors and JSON. Loading it runs no code."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ..descriptions.base import WordBank
from ..encoders.base import Encoder
from ..errors import DataError, ModelError, WeightsError
from ..files import write_atomic
from ..prototypes.bank import BankPicture, PatchBank
from ..prototypes.measure import LikenessMeasure
from . import classifiers
from .base import Classifier, HeldOut
from .head import Feature, Head, Projected
from .network import Network
from .normalise import Normalise
from .reranking import Reranking
from .votes import Votes

FORMAT = 1
CARD = "seewhy.json"
TENSORS = "tensors.safetensors"


def save(classifier: Classifier, folder: Path) -> Path:
    """Write to a folder beside the target, then take its name in one step.

    Raises:
        DataError: the folder exists and is not a saved classifier, or cannot be written.
    """
    if folder.exists() and not (folder / CARD).is_file():
        raise DataError(f"{folder} exists and is not a SeeWhy classifier. Give another name.")
    fresh = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.part"
    try:
        fresh.mkdir(parents=True)
        write_atomic(fresh / TENSORS, save_tensors(_tensors(classifier)))
        write_atomic(fresh / CARD, json.dumps(_card(classifier), indent=1, ensure_ascii=False))
        _swap(fresh, folder)
    except OSError as error:
        raise DataError(f"{folder} could not be written: {error}. Free some space or give another place.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _swap(fresh: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(fresh, folder)
        return
    old = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.old"
    os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def _card(c: Classifier) -> dict[str, Any]:
    feature = c.head.feature
    kind = {"kind": "normalise", **feature.to_json()} if isinstance(feature, Normalise) else {"kind": "projected"}
    return {
        "format": FORMAT,
        "seewhy": version("seewhy"),
        "recipe": c.recipe,
        "parameters": c.parameters,
        "encoder": (c.encoder if c.network is None else c.network.base).describe(),
        "network": c.network and c.network.facts(),
        "classes": list(c.classes),
        "feature": kind,
        "scale": c.head.scale,
        "votes": {"k": c.head.votes.k, "names": list(c.head.votes.names)} if isinstance(c.head.votes, Votes) else None,
        "reranking": c.head.votes.facts() if isinstance(c.head.votes, Reranking) else None,
        "words": None if c.words is None else {"texts": list(c.words.texts)},
        "decided_by_words": c.decided_by_words,
        "words_accuracy": c.words_accuracy,
        "words_accuracy_on": c.words_accuracy_on,
        "likeness": None if c.likeness is None else vars(c.likeness),
        "bank": None if c.bank is None else [[p.name, p.digest, p.label, len(p.thumbnail)] for p in c.bank.pictures],
        "trained_on": c.trained_on,
        "measures": c.measures,
    }


def _tensors(c: Classifier) -> dict[str, Tensor]:
    tensors = {"head.weight": c.head.weight, "head.bias": c.head.bias}
    if isinstance(c.head.votes, Votes):
        tensors["head.owner"] = c.head.votes.owner
    elif c.head.votes is not None:
        tensors |= {f"reranking.{name}": tensor for name, tensor in c.head.votes.tensors().items()}
    if c.network is not None:
        tensors |= {f"network.{name}": tensor for name, tensor in c.network.tensors().items()}
    if c.words is not None:
        tensors |= {"words.vectors": c.words.vectors, "words.owner": c.words.owner}
    if c.held_out is not None:
        tensors |= {"held_out.pooled": c.held_out.pooled.half(), "held_out.labels": c.held_out.labels}
    if c.bank is not None:
        thumbnails = np.frombuffer(b"".join(p.thumbnail for p in c.bank.pictures), np.uint8)
        tensors |= {
            "bank.pooled": c.bank.pooled.half(),
            "bank.vectors": c.bank.vectors.half(),
            "bank.owner": c.bank.owner,
            "bank.boxes": c.bank.boxes,
            "bank.pixel_boxes": c.bank.pixel_boxes,
            "bank.thumbnails": torch.from_numpy(thumbnails.copy()),
        }
    return {k: v.contiguous() for k, v in tensors.items()}


def load(folder: str | Path, *, engine: str = "auto", encoder: Encoder | None = None) -> Classifier:
    """Load a saved classifier.

    Args:
        folder: what :meth:`Classifier.save` wrote.
        engine: what runs the trunk.
        encoder: the encoder, if it was made from a module of yours and so cannot be found by name.

    Raises:
        ModelError: not a saved classifier, of a newer format, or the encoder is not the one it was made with.
        WeightsError: its tensors are damaged.
    """
    from ..encoders.find import encoder as find

    folder = Path(folder)
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        data = (folder / TENSORS).read_bytes()
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{folder} is not a saved SeeWhy classifier ({error}). Make one with: seewhy fit PHOTOS -o {folder}"
        ) from error
    written = card.get("format") if isinstance(card, dict) else None
    if written != FORMAT:
        raise ModelError(
            f"{folder} has format {written!r}; this SeeWhy reads {FORMAT}. "
            "Update SeeWhy with: pip install -U seewhy, or fit the classifier again."
        )
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise WeightsError(f"{folder / TENSORS} is damaged ({error}). Fit the classifier again.") from error
    try:
        name, fingerprint = str(card["encoder"]["encoder"]), card["encoder"]["fingerprint"]
    except (KeyError, TypeError) as error:
        raise _damaged(folder, error) from error
    found = encoder or find(name, engine=engine)
    if found.fingerprint != fingerprint:
        raise ModelError(
            f"{folder} was made with other weights of {name!r} than those found here. "
            "Bring the same weights, or fit the classifier again."
        )
    try:
        network = _network(card, tensors, found)
        looks = found if network is None else network.encoder()
        return replace(_assemble(card, tensors, looks), folder=folder, network=network)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"{folder / CARD} is damaged ({error!r}). Fit the classifier again.")


def _network(card: dict[str, Any], tensors: dict[str, Tensor], base: Encoder) -> Network | None:
    """What was trained inside the network, if anything was."""
    if card.get("network") is None:
        return None
    kind = classifiers[card["recipe"]].network
    if kind is None:
        raise ValueError(f"{card['recipe']} trains no network")
    own = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
    return kind.restore(base, card["network"], own)


def _assemble(card: dict[str, Any], tensors: dict[str, Tensor], encoder: Encoder) -> Classifier:
    kind = dict(card["feature"])
    feature: Feature = Normalise.from_json(kind) if kind.pop("kind") == "normalise" else Projected(encoder.text)
    classes = tuple(card["classes"])
    if len(classes) != len(tensors["head.bias"]):
        raise ValueError(f"{len(classes)} classes for {len(tensors['head.bias'])} rows")
    words = card["words"]
    held = "held_out.pooled" in tensors
    return Classifier(
        recipe=card["recipe"],
        parameters=card["parameters"],
        encoder=encoder,
        classes=classes,
        head=Head(feature, tensors["head.weight"], tensors["head.bias"], float(card["scale"]), _votes(card, tensors)),
        words=words and WordBank(classes, tuple(words["texts"]), tensors["words.owner"], tensors["words.vectors"]),
        decided_by_words=card["decided_by_words"],
        bank=None if card["bank"] is None else _bank(card["bank"], tensors),
        likeness=card["likeness"] and LikenessMeasure(**card["likeness"]),
        held_out=HeldOut(tensors["held_out.pooled"].float(), tensors["held_out.labels"]) if held else None,
        words_accuracy=card["words_accuracy"],
        words_accuracy_on=card["words_accuracy_on"],
        trained_on=card["trained_on"],
        measures=card["measures"],
    )


def _votes(card: dict[str, Any], tensors: dict[str, Tensor]) -> Votes | Reranking | None:
    """What stands between the rows' scores and the logits, if anything does."""
    if (votes := card.get("votes")) is not None:
        return Votes(tensors["head.owner"], len(card["classes"]), int(votes["k"]), tuple(votes["names"]))
    if (facts := card.get("reranking")) is None:
        return None
    kind = classifiers[card["recipe"]].reranking
    if kind is None:
        raise ValueError(f"{card['recipe']} does not look a second time")
    own = {n.removeprefix("reranking."): t for n, t in tensors.items() if n.startswith("reranking.")}
    return kind.restore(facts, own, tensors["head.weight"])


def _bank(pictures: list[list[Any]], tensors: dict[str, Tensor]) -> PatchBank:
    thumbnails = tensors["bank.thumbnails"].numpy().tobytes()
    found, start = [], 0
    for name, digest, label, size in pictures:
        found.append(BankPicture(name, digest, label, thumbnails[start : start + size]))
        start += size
    return PatchBank(
        tuple(found),
        tensors["bank.pooled"].float(),
        tensors["bank.vectors"].float(),
        tensors["bank.owner"],
        tensors["bank.boxes"],
        tensors["bank.pixel_boxes"],
    )
