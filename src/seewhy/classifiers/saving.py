"""A saved classifier: a folder of safetensors and JSON. Loading it runs no code."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from ..arguments import checked
from ..descriptions.base import WordBank
from ..encoders.base import Encoder
from ..encoders.engines import PRECISIONS
from ..encoders.provenance import saved_encoder
from ..heads.head import Feature, Head, Projected
from ..heads.normalise import Normalise
from ..heads.votes import Votes
from ..heads.word_decision import WordDecision
from ..prototypes.bank import PatchBank, check_finite, joined_thumbnails, listed, pictures_of
from ..prototypes.measure import LikenessMeasure
from ..storage.archive import FolderArchive
from ..storage.marks import Facts
from ..storage.reading import check_kinds
from ..storage.tensors import compact, tensors_digest
from ..trust.base import VERSION as TRUST_VERSION
from ..trust.base import Trust
from ..trust.measure import trust_features
from . import classifiers
from .base import Classifier, HeldOut
from .known_pictures import KnownPictures
from .network import Network, ReadsPooled
from .saved_checks import KINDS, check

FORMAT = 2
CARD = "seewhy.json"
MAX_LOGIT = 60000.0
"""What half precision holds."""
ARCHIVE = FolderArchive(
    CARD,
    Facts(("format", "seewhy", "recipe", "encoder")),
    formats=(1, FORMAT),
    kind="a saved SeeWhy classifier",
    make="Make one with: seewhy fit PHOTOS -o {folder}",
    again="fit the classifier again",
    undigested={1: "tensors.safetensors"},
)


def save(classifier: Classifier, folder: Path) -> Path:
    """Write the card and, beside it, the tensors under a name made of their SHA-256.

    A classifier that was there is replaced at the moment its card is: until then it is whole, and after it the new one
    is. Nothing else in the folder is touched.

    Raises:
        DataError: the folder exists and is not a saved classifier, or cannot be written.
    """
    fitted_in = classifier.fitted_in or classifier.encoder.engine.precision
    return ARCHIVE.save(folder, {**_card(classifier), "fitted_in": fitted_in}, save_tensors(_tensors(classifier)))


def digest(classifier: Classifier) -> str:
    """SHA-256 of all that :func:`save` writes but its remark on precision, and so of SeeWhy's version too."""
    card = json.dumps(_card(classifier), sort_keys=True)
    return hashlib.sha256(f"{card}|{tensors_digest(_tensors(classifier))}".encode()).hexdigest()


def _card(c: Classifier) -> dict[str, Any]:
    feature = c.head.feature
    kind: dict[str, Any] = {"kind": "network" if isinstance(c.network, ReadsPooled) else "projected"}
    if isinstance(feature, Normalise):
        kind = {"kind": "normalise", **feature.to_json()}
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
        "reranking": c.head.votes.facts() if isinstance(c.head.votes, WordDecision) else None,
        "words": None if c.words is None else {"texts": list(c.words.texts)},
        "decided_by_words": c.decided_by_words,
        "words_accuracy": c.words_accuracy,
        "words_accuracy_on": c.words_accuracy_on,
        "likeness": None if c.likeness is None else c.likeness.to_json(),
        "bank": None if c.bank is None else listed(c.bank.pictures),
        "trained_on": c.trained_on,
        "measures": c.measures,
        "known": None if c.known is None else c.known.facts(),
        "trust": None if c.trust is None else c.trust.facts(),
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
        if c.words.nameless is not None:
            tensors["words.nameless"] = c.words.nameless
    if c.known is not None:
        tensors |= c.known.tensors()
    if c.held_out is not None:
        tensors |= _held_out_tensors(c.held_out)
    if c.trust is not None:
        tensors |= {f"trust.{name}": tensor for name, tensor in c.trust.tensors().items()}
    if c.bank is not None:
        tensors |= {
            "bank.pooled": compact(c.bank.pooled),
            "bank.vectors": compact(c.bank.vectors),
            "bank.owner": c.bank.owner,
            "bank.boxes": c.bank.boxes,
            "bank.pixel_boxes": c.bank.pixel_boxes,
            "bank.thumbnails": joined_thumbnails(c.bank.pictures),
        }
    return {k: v.contiguous() for k, v in tensors.items()}


def _held_out_tensors(held: HeldOut) -> dict[str, Tensor]:
    tensors = {"held_out.pooled": compact(held.pooled), "held_out.labels": held.labels}
    if held.logits is not None:
        tensors["held_out.logits"] = held.logits.clamp(-MAX_LOGIT, MAX_LOGIT).half()
    if held.groups is not None:
        tensors["held_out.groups"] = held.groups
    return tensors


def _held_out(tensors: dict[str, Tensor]) -> HeldOut | None:
    """Archives of earlier versions have neither logits nor groups."""
    if "held_out.pooled" not in tensors:
        return None
    logits = tensors.get("held_out.logits")
    return HeldOut(
        tensors["held_out.pooled"].float(),
        tensors["held_out.labels"],
        None if logits is None else logits.float(),
        tensors.get("held_out.groups"),
    )


@checked
def load(folder: str | Path, *, engine: str = "auto", encoder: Encoder | str | None = None) -> Classifier:
    """Load a saved classifier.

    Args:
        folder: what :meth:`Classifier.save` wrote.
        engine: what runs the trunk.
        encoder: the encoder it was made with, or its name; left out, the embedded one that its card names. A card never
            chooses another.

    Raises:
        ModelError: not a saved classifier, of a newer format, or the encoder is not the one it was made with.
        WeightsError: its tensors are damaged.
    """
    folder = Path(folder)
    card = ARCHIVE.load_card(folder)
    try:
        found = saved_encoder(
            card["encoder"],
            encoder,
            engine=engine,
            place=str(folder),
            command=f"seewhy predict … -m {shlex.quote(str(folder))} --encoder {{}}",
            again="fit the classifier again",
        )
    except (KeyError, TypeError) as error:
        raise ARCHIVE.damaged(folder, error) from error
    tensors = ARCHIVE.checked_tensors(folder, card)
    try:
        check_kinds(tensors, KINDS)
        check_finite(tensors)
        network = _network(card, tensors, found)
        looks = found if network is None else network.encoder()
        # An absolute folder, since the user may go to another one before its explainers are looked for.
        made = _assemble(card, tensors, looks, network)
        classifier = replace(made, folder=folder.absolute(), network=network)
        check(classifier)
    except (LookupError, AttributeError, TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        raise ARCHIVE.damaged(folder, error) from error
    return classifier


def _network(card: dict[str, Any], tensors: dict[str, Tensor], base: Encoder) -> Network | None:
    """What was trained inside the network, if anything was."""
    if card.get("network") is None:
        return None
    kind = classifiers[card["recipe"]].network
    if kind is None:
        raise ValueError(f"{card['recipe']} trains no network")
    own = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
    return kind.restore(base, card["network"], own)


def _feature(kind: dict[str, Any], encoder: Encoder, network: Network | None) -> Feature:
    name = kind.pop("kind")
    if name == "network":
        if not isinstance(network, ReadsPooled):
            raise ValueError("no network reads its features")
        return network.feature()
    return Normalise.from_json(kind) if name == "normalise" else Projected(encoder.text)


def _assemble(
    card: dict[str, Any], tensors: dict[str, Tensor], encoder: Encoder, network: Network | None
) -> Classifier:
    feature = _feature(dict(card["feature"]), encoder, network)
    classes = tuple(card["classes"])
    words = card["words"]
    return Classifier(
        recipe=card["recipe"],
        parameters=card["parameters"],
        encoder=encoder,
        classes=classes,
        head=Head(feature, tensors["head.weight"], tensors["head.bias"], float(card["scale"]), _votes(card, tensors)),
        words=None if words is None else _words(classes, words, tensors),
        decided_by_words=card["decided_by_words"],
        bank=None if card["bank"] is None else _bank(card["bank"], tensors),
        likeness=LikenessMeasure.restore(card["likeness"]),
        held_out=_held_out(tensors),
        words_accuracy=card["words_accuracy"],
        words_accuracy_on=card["words_accuracy_on"],
        trained_on=card["trained_on"],
        measures=card["measures"],
        known=KnownPictures.restore(card.get("known"), tensors),
        fitted_in=_precision(card.get("fitted_in", "")),
        trust=_trust(card, tensors),
    )


def _precision(written: object) -> str:
    if written not in ("", *PRECISIONS.values()):
        raise ValueError(f"it was fitted in {written!r}")
    return str(written)


def _trust(card: dict[str, Any], tensors: dict[str, Tensor]) -> Trust | None:
    """Archives of earlier versions have none, or one by other rules; it is then measured anew, where that can be."""
    facts, held = card.get("trust"), _held_out(tensors)
    if facts is None or held is None or facts["version"] in range(1, TRUST_VERSION):
        return None
    own = {name.removeprefix("trust."): t for name, t in tensors.items() if name.startswith("trust.")}
    return Trust.restore(facts, own, trust_features(held.pooled.float()))


def _words(classes: tuple[str, ...], words: dict[str, Any], tensors: dict[str, Tensor]) -> WordBank:
    return WordBank(
        classes,
        tuple(words["texts"]),
        tensors["words.owner"],
        tensors["words.vectors"],
        tensors.get("words.nameless"),
    )


def _votes(card: dict[str, Any], tensors: dict[str, Tensor]) -> Votes | WordDecision | None:
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
    return PatchBank(
        pictures_of(pictures, tensors["bank.thumbnails"]),
        tensors["bank.pooled"].float(),
        tensors["bank.vectors"].float(),
        tensors["bank.owner"],
        tensors["bank.boxes"],
        tensors["bank.pixel_boxes"],
    )
