"""Image Textualization: a draft, what experts see, and the draft corrected and filled in from it (arXiv 2406.07502)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .experts import CONTROLS, DepthEstimator, Detector, FoundObject, Scene, Segmenter, Verifier
from .llm import WriterSession
from .text_metrics import mentions
from .textualize_prompts import objects_prompt, read_objects, read_text, rewrite_prompt
from .textualize_removal import without
from .textualize_words import scaled_depths, sentence_for


@dataclass(frozen=True)
class Textualized:
    """One picture's description and everything it came from.

    Attributes:
        scene: the picture.
        draft: the text that was given.
        phrases: objects that the draft names.
        removed: of them, those that nothing on the picture bears out.
        found: what the experts found, at most ``n_objects``, depths scaled to 0…1.
        added: of what was found, what the draft did not name.
        description: the result.
        kept: why the draft was left as it is, or empty.
    """

    scene: Scene
    draft: str
    phrases: tuple[str, ...]
    removed: tuple[str, ...]
    found: tuple[FoundObject, ...]
    added: tuple[FoundObject, ...]
    description: str
    kept: str = ""

    def to_json(self) -> dict[str, Any]:
        """One record a picture; names as in the authors' intermediate files, boxes in pixels, sizes in pixels."""
        width, height = self.scene.width, self.scene.height
        boxes = [[round(v * (width, height)[i % 2], 1) for i, v in enumerate(o.box)] for o in self.found]
        return {
            "image": self.scene.name,
            "digest": self.scene.digest,
            "width": width,
            "height": height,
            "draft": self.draft,
            "obj_from_desc": list(self.phrases),
            "del_obj_from_desc": list(self.removed),
            "extr_obj_from_img": [" ".join(filter(None, (o.colour, o.label))) for o in self.found],
            "bounding_boxes": boxes,
            "object_depth": [o.depth for o in self.found],
            "size": [None if o.size is None else round(o.size * width * height) for o in self.found],
            "score": [o.score for o in self.found],
            "added": [o.label for o in self.added],
            "kept": self.kept,
            "description": self.description,
        }


@dataclass(frozen=True)
class Textualizer:
    """The pipeline; every expert can be another.

    Phase 1 is the draft, from whoever wrote it. Phase 2: objects of the draft; objects of the picture, the first
    ``n_objects`` of the detector; a phrase of the draft that the verifier does not find is a hallucination; size from
    the segmenter, depth scaled to 0…1 over the objects. Phase 3: a rewrite by a writer, or by rules: sentences or items
    that name a hallucination go, and each object that is missing gets a sentence, its numbers in words.

    Differences from the authors' code: depths that are all equal are left unsaid, where theirs returns the draft; the
    prompts and examples are ours; answers are repeatable (temperature 0).

    Args:
        detector: finds objects.
        verifier: looks for a phrase; left out, nothing is removed.
        segmenter: measures sizes; left out, sizes are unsaid.
        depth: measures nearness; left out, it is unsaid.
        desk: of a writer that lists a draft's objects and rewrites it; left out, both go by rules.
        n_objects: listed at most, the surest first; 10 in the authors' code. What comes after is lost.
        least: with fewer objects, the draft is not rewritten but for what must go; 2 in the authors' code.
        vocabulary: what the rules look for in a draft.
    """

    detector: Detector
    verifier: Verifier | None = None
    segmenter: Segmenter | None = None
    depth: DepthEstimator | None = None
    desk: WriterSession | None = None
    n_objects: int = 10
    least: int = 2
    vocabulary: tuple[str, ...] = field(default=CONTROLS, repr=False)

    def __call__(self, scene: Scene, draft: str) -> Textualized:
        """Correct and fill in a draft.

        Args:
            scene: the picture.
            draft: a description of it; may be empty.

        Raises:
            ImageError: an expert cannot read the picture.
            WriterError: the writer fails, or does not answer as asked.
        """
        found = self.measure(scene, self.detector.detect(scene)[: self.n_objects])
        phrases = self.phrases(draft, [o.label for o in found])
        named = {o.label for o in found}
        removed: tuple[str, ...] = ()
        if self.verifier is not None:
            removed = tuple(p for p in phrases if p not in named and not self.verifier.supports(scene, p))
        added = tuple(self._missing(draft, found, removed)) if len(found) >= self.least else ()
        kept = "" if added or removed else "nothing to add or to remove"
        if len(found) < self.least and not removed:
            kept = f"fewer than {self.least} objects were found"
        if kept:
            description = draft
        elif self.desk is not None:
            prompt = rewrite_prompt(draft, removed, found)
            description = self.desk.ask(prompt, read_text)
        else:
            description = " ".join(filter(None, [without(draft, removed), *(sentence_for(o) for o in added)]))
        return Textualized(scene, draft, phrases, removed, found, added, description, kept)

    def measure(self, scene: Scene, found: Sequence[FoundObject]) -> tuple[FoundObject, ...]:
        """Sizes and depths, where there are experts for them."""
        near = None if self.depth is None else self.depth.nearness(scene)
        rows = []
        for o in found:
            if self.segmenter is not None:
                mask = self.segmenter.segment(scene, o.box)
                depth = float(near[mask].mean()) if near is not None and mask.any() else o.depth
                o = replace(o, size=round(float(mask.mean()), 4), depth=depth)
            rows.append(o)
        return tuple(scaled_depths(rows))

    def phrases(self, draft: str, known: Iterable[str] = ()) -> tuple[str, ...]:
        """Objects that a draft states, by the writer or by looking for the vocabulary."""
        if not draft.strip():
            return ()
        if self.desk is not None:
            return self.desk.ask(objects_prompt(draft), read_objects)
        return tuple(v for v in dict.fromkeys([*known, *self.vocabulary]) if mentions(draft, v))

    def _missing(self, draft: str, found: Sequence[FoundObject], removed: Sequence[str]) -> Iterable[FoundObject]:
        """What was found and is not named; of several of one label and colour, the surest."""
        seen = set()
        left = without(draft, removed)
        for o in found:
            name = (o.label, o.colour)
            if name not in seen and not mentions(left, o.label):
                seen.add(name)
                yield o
