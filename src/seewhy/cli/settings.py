"""What ``--set`` sets in each verb: fields of what it makes, and a few settings that are fields of nothing.

``make docs`` writes ``settings.json`` from this table, so that ``--help-all`` imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Own:
    """A setting that is a field of nothing: what stands there, what it means, and its type, else that of the preset."""

    preset: Any
    help: str
    kind: Any = None

    def __post_init__(self) -> None:
        if self.kind is None:
            object.__setattr__(self, "kind", type(self.preset))


STRENGTHS = Own("calibrated", "of what --because changes: calibrated, to an equal change of the picture, or paper.")
IGNORE = Own((255,), "values of masks that count for nothing.", tuple[int, ...])
SPREAD = "seewhy.cli.many:Spread"
WRITING = "seewhy.cli.describe:Writing"
WEB = {
    "max_upload": Own(20.0, "largest request, in megabytes."),
    "decode_seconds": Own(10, "computing that one picture may take to be decoded; then it is refused."),
}
SETTINGS: dict[str, tuple[str | dict[str, Own], ...]] = {
    "fit": (
        "seewhy.attributions.explainers:FitTTAME",
        {
            "epochs": Own(8, "of an explainer: times every picture is seen; the authors' 8."),
            "steps": Own(None, "of an explainer: batches in all, instead of epochs.", int | None),
            "batch_size": Own(32, "of an explainer: pictures at once; the authors' 32."),
            "lr": Own(2e-3, "of an explainer: highest learning rate."),
            "paper": Own(False, "of an explainer: the authors' optimiser, batch and rate."),
            "ignore": IGNORE,
            "folds": Own(5, "of a detector: parts, each found by a detector of the others."),
            "precision": Own(
                None,
                "of a detector: what boxes of each class are to have on new pictures; left out, F1 is largest.",
                float | None,
            ),
        },
    ),
    "predict": (SPREAD, {"batch_size": Own(32, "pictures at once.")}),
    "explain": (
        "seewhy.evidence.explain:ExplainOptions",
        SPREAD,
        {
            "strengths": STRENGTHS,
            "explainer": Own(None, "a trained explainer or its folder; left out, the classifier's own.", Path | None),
            "judge": Own(
                None,
                "with --typical: a saved classifier or an encoder with words that says what is on the pictures; not "
                "the one climbed.",
                str | None,
            ),
            "most_cards": Own(20, "boxes or segments of one picture that get a card: the surest, the largest."),
        },
    ),
    "segment": ("seewhy.dense.maskclip:MaskCLIP",),
    "detect": (
        "seewhy.dense.word_regions:WordRegions",
        {
            "overlap": Own(None, "of two boxes of a class that overlap more, the surer is kept.", float | None),
            "most": Own(None, "boxes kept in one picture.", int | None),
        },
    ),
    "evaluate": ("seewhy.studies.auditing.drift:DriftTest", {"ignore": IGNORE}),
    "check": ("seewhy.studies.inspection.check:Check", {"n_examples": Own(3, "with --texts: examples of each rule.")}),
    "app": ("seewhy.language.annotation.rounds:StopRule", WEB),
    "serve": (
        {
            **WEB,
            "max_pictures": Own(32, "pictures of one request."),
            "max_batch": Own(16, "pictures of all clients that are looked at together."),
            "max_wait": Own(5.0, "milliseconds that a picture waits for others being decoded."),
            "max_waiting": Own(256, "pictures that may wait; one more is refused."),
            "request_seconds": Own(60.0, "time until a request is given up."),
            "reload_seconds": Own(5.0, "how often folders are looked at for a new model; 0 waits for SIGHUP."),
            "drain_seconds": Own(30.0, "time that running requests get to end after SIGTERM."),
        },
    ),
    "index": ("seewhy.retrieval.settings:Settings", "seewhy.scale.work:Embed", SPREAD),
    "search": (
        "seewhy.retrieval:Query",
        {
            "collapse": Own(0.97, "cosine above which a picture is listed as a copy; 1 shows all."),
            "levels": Own(3, "levels of the query's spatial parts."),
        },
    ),
    "adapt": ("seewhy.learning.adapt:Adapt",),
    "pretrain": ("seewhy.learning.pretrain:Pretrain",),
    "describe write": (
        WRITING,
        {
            "n_texts": Own(None, "texts of each class (6) or of each pair (5), at most.", int | None),
            "most": Own(50, "with --pairs: pairs, those confused most often first."),
            "top": Own(3, "with --pairs: so many of a picture's likeliest classes count as confusable."),
        },
    ),
    "describe match": ("seewhy.language.matching:Match", WRITING),
    "describe images": (WRITING, {"threshold": Own(0.5, "probability that a place needs to be an object.")}),
    "study background": ("seewhy.studies.background:BackgroundStudy",),
    "study interpretability": ("seewhy.studies.interpretability:InterpretabilityStudy",),
    "study scaling": (
        "seewhy.studies.scaling:ScalingStudy",
        {"n_crops": Own(0, "random crops and flips a picture, beside the picture itself.")},
    ),
    "study transfer": ("seewhy.studies.transfer:TransferStudy",),
    "study base-to-new": ("seewhy.studies.base_to_new:BaseToNewStudy",),
    "study claims": ("seewhy.studies.claims:ClaimsStudy",),
    "study generate": (
        "seewhy.generation.generate:Asking",
        "seewhy.generation.decoders:Bring",
        "seewhy.generation.sampler:PPGN",
        {
            "generator_encoder": Own(
                None, "the encoder whose codes the generator turns round, where its name does not find it.", str | None
            )
        },
    ),
}
"""Verb → classes by their full names, and settings of its own. Settings of a method are shown by ``seewhy methods``."""
