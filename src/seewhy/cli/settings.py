"""The settings of ``--set`` for each command.

``make docs`` writes ``settings.json`` from this table, so that ``--help-all`` needs no imports.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Own:
    """A setting that is not a field of a class; its type is ``kind`` or, if not given, the type of the default."""

    preset: Any
    help: str
    kind: Any = None

    def __post_init__(self) -> None:
        if self.kind is None:
            object.__setattr__(self, "kind", type(self.preset))


STRENGTHS = Own("calibrated", "strength of the changes of --because: calibrated (to equal effect) or paper.")
IGNORE = Own((255,), "mask values to ignore.", tuple[int, ...])
SPREAD = "seewhy.cli.many:Spread"
WRITING = "seewhy.cli.describe:Writing"
WEB = {
    "max_upload": Own(20.0, "maximum megabytes of a request."),
    "decode_seconds": Own(10, "maximum CPU seconds to decode one picture."),
}
SETTINGS: dict[str, tuple[str | dict[str, Own], ...]] = {
    "fit": (
        "seewhy.attributions.explainers:FitTTAME",
        {
            "epochs": Own(8, "for an explainer: number of passes over the pictures; 8 in the paper."),
            "steps": Own(None, "for an explainer: number of batches, instead of epochs.", int | None),
            "batch_size": Own(32, "for an explainer: pictures per batch; 32 in the paper."),
            "lr": Own(2e-3, "for an explainer: highest learning rate."),
            "paper": Own(False, "for an explainer: use the optimiser, batch size and learning rate of the paper."),
            "ignore": IGNORE,
            "folds": Own(5, "for a detector: number of folds of its cross-validation."),
            "precision": Own(
                None,
                "for a detector: required precision of each class on new pictures; default: the largest F1.",
                float | None,
            ),
        },
    ),
    "predict": (SPREAD, {"batch_size": Own(32, "pictures per batch.")}),
    "explain": (
        "seewhy.evidence.explain:ExplainOptions",
        SPREAD,
        {
            "strengths": STRENGTHS,
            "explainer": Own(None, "a trained explainer or its folder; default: the classifier's own.", Path | None),
            "judge": Own(
                None,
                "with --typical: a saved classifier or an image-text encoder to judge the generated "
                "pictures; it must not be the network that guides the generation.",
                str | None,
            ),
            "most_cards": Own(
                20, "maximum cards per picture: for the boxes of highest score, or the largest segments."
            ),
        },
    ),
    "segment": ("seewhy.dense.maskclip:MaskCLIP",),
    "detect": (
        "seewhy.dense.word_regions:WordRegions",
        {
            "overlap": Own(
                None,
                "maximum overlap of two boxes of a class; of boxes that overlap more, only the one with "
                "the highest score is kept.",
                float | None,
            ),
            "most": Own(None, "maximum boxes per picture.", int | None),
        },
    ),
    "evaluate": ("seewhy.studies.auditing.drift:DriftTest", {"ignore": IGNORE}),
    "check": ("seewhy.studies.inspection.check:Check", {"n_examples": Own(3, "with --texts: examples per rule.")}),
    "app": ("seewhy.language.annotation.rounds:StopRule", WEB),
    "serve": (
        {
            **WEB,
            "max_pictures": Own(32, "maximum pictures per request."),
            "max_batch": Own(16, "maximum pictures per batch, over all clients."),
            "max_wait": Own(5.0, "milliseconds that a picture waits for others to join its batch."),
            "max_waiting": Own(256, "maximum waiting pictures; further ones are refused."),
            "request_seconds": Own(60.0, "maximum seconds for a request."),
            "reload_seconds": Own(5.0, "seconds between checks for a new model; 0 waits for SIGHUP."),
            "drain_seconds": Own(30.0, "maximum seconds for running requests after SIGTERM."),
        },
    ),
    "index": ("seewhy.retrieval.settings:Settings", "seewhy.scale.work:Embed", SPREAD),
    "search": (
        "seewhy.retrieval:Query",
        {
            "collapse": Own(
                0.97, "cosine similarity above which a result is listed as a copy of another; 1 lists all."
            ),
            "levels": Own(3, "levels of the query's spatial parts."),
        },
    ),
    "adapt": ("seewhy.learning.adapt:Adapt",),
    "pretrain": ("seewhy.learning.pretrain:Pretrain",),
    "describe write": (
        WRITING,
        {
            "n_texts": Own(None, "maximum texts per class (default 6) or per pair (default 5).", int | None),
            "most": Own(50, "with --pairs: number of pairs; those confused most often come first."),
            "top": Own(3, "with --pairs: number of a picture's most probable classes that count as confusable."),
        },
    ),
    "describe match": ("seewhy.language.matching:Match", WRITING),
    "describe images": (WRITING, {"threshold": Own(0.5, "minimum probability of an object.")}),
    "study background": ("seewhy.studies.background:BackgroundStudy",),
    "study interpretability": ("seewhy.studies.interpretability:InterpretabilityStudy",),
    "study scaling": (
        "seewhy.studies.scaling:ScalingStudy",
        {"n_crops": Own(0, "random crops and flips per picture, besides the picture itself.")},
    ),
    "study transfer": ("seewhy.studies.transfer:TransferStudy",),
    "study base-to-new": ("seewhy.studies.base_to_new:BaseToNewStudy",),
    "study compare": ("seewhy.studies.compare:CompareStudy",),
    "study claims": ("seewhy.studies.claims:ClaimsStudy",),
    "study generate": (
        "seewhy.generation.generate:Asking",
        "seewhy.generation.decoders:Bring",
        "seewhy.generation.sampler:PPGN",
        {
            "generator_encoder": Own(
                None, "encoder whose codes the generator inverts, if its name does not say.", str | None
            )
        },
    ),
}
"""Classes by their full names, and other settings, for each command. ``seewhy methods`` shows the settings of a
method."""
