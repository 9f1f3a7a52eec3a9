"""Under which heads ``--help`` lists the options of verbs that have many."""

from __future__ import annotations

from typing import Any

from typer.core import TyperOption

from .outputs import Guarded

HEADS = {
    "The model": ("model", "labels", "encoder", "focus", "engine"),
    "Where it looked": (
        "where", "target", "contrast", "layer", "setting", "neurons", "explainer", "target_text", "contrast_text",
        "measure", "seed", "object_mask", "object_segmenter", "object_words",
    ),
    "Boxes and segments": ("detector", "segmenter", "known", "most_cards"),
    "A typical picture": ("typical", "judge"),
    "Many pictures": (
        "parquet", "shard", "per_shard", "workers", "threads", "cluster", "gpus", "decoders", "image_column",
    ),
    "Like what": ("like", "prototypes", "because", "strengths"),
    "In words": ("descriptions", "follow_up", "validation"),
    "The decision": ("level",),
    "Output": ("output", "png", "force", "as_json", "store", "quiet"),
}  # fmt: skip
EVERYWHERE = ("The model", "Output")
"""Heads of every verb; elsewhere than in ``explain`` the other options have other meanings."""


class Headed(Guarded):
    """A verb whose help lists its options under heads, in their order; an option without one comes first."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        heads = tuple(HEADS) if self.name == "explain" else EVERYWHERE
        own = {name: head for head in heads for name in HEADS[head]}
        for option in self.params:
            if isinstance(option, TyperOption):
                option.rich_help_panel = own.get(option.name or "")
        listed = {name: heads.index(head) for name, head in own.items()}
        self.params.sort(key=lambda p: listed.get(p.name or "", -1) if isinstance(p, TyperOption) else -1)
