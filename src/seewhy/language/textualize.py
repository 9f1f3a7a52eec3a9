"""Image Textualization: correct and extend a draft description with vision experts (arXiv 2406.07502)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..descriptions.base import naming
from ..errors import DataError, ImageError
from ..pictures.images import Picture, read_picture
from ..pictures.miniatures import encode_thumbnail
from ..storage.journal import Journal
from ..storage.marks import Lines, Record
from ..storage.reading import json_lines, read_file
from ..types import Failure, FractionBox, Transform
from . import experts as seen_by
from .experts import CONTROLS, WHOLE, FoundObject
from .questions import object_schema, read_json
from .writers import Estimate, NoWriterError, Prompt, WriterError, WriterSession

if TYPE_CHECKING:
    from ..attributions.base import Deciding

DESCRIPTIONS = Lines((Record(("image", "digest", "width", "height", "draft", "obj_from_desc"), None),))
LONGEST = 1024
"""Longest side, in pixels, of a picture for a writer."""
SMALL, LARGE = 0.02, 0.4
"""Size limits, as fractions of the picture; only smaller or larger objects are described by size."""
NEAR, FAR = 0.75, 0.25
"""Limits of normalised depth, 0 to 1; only nearer or farther objects are described by distance."""
_SENTENCE = re.compile(r"\S[^.!?]*(?:[.!?]+|$)")
_JOINT = re.compile(r"(,\s+and\s+|,\s+|\s+and\s+)")
_ITEM = re.compile(r"(?:an?|the|two|three|some|several|its|many)\s", re.IGNORECASE)
OBJECTS_SCHEMA = object_schema(objects={"type": "array", "items": {"type": "string"}})


@dataclass(frozen=True)
class Textualized:
    """The description of one picture with its intermediate results."""

    scene: Picture
    draft: str
    phrases: tuple[str, ...]
    removed: tuple[str, ...]
    found: tuple[FoundObject, ...]
    added: tuple[FoundObject, ...]
    description: str
    kept: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON record with the key names of the authors' intermediate files; boxes and sizes are in pixels."""
        width, height = self.scene.original_size
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
    """A pipeline that corrects a draft description with replaceable vision experts.

    In phase 2, a phrase of the draft that the verifier cannot find in the picture is marked as a hallucination. The
    detector, segmenter and depth estimator measure the objects. In phase 3 a writer or a set of rules removes the
    hallucinations and adds the missing objects.

    Where we differ from the authors' code: equal depths are not mentioned, and prompts and examples are SeeWhy's own.

    Args:
        detector: finds the objects in the picture.
        verifier: checks the draft's phrases; ``None`` removes nothing.
        segmenter: measures sizes; ``None`` omits them.
        depth: measures depths; ``None`` omits them.
        desk: writer for phases 2 and 3; ``None`` uses rules.
        n_objects: largest number of objects, those with the highest scores (authors: 10).
        least: smallest number of objects; if fewer are found, none is added to the draft (authors: 2).
        vocabulary: object names that the rules look for in a draft.
    """

    detector: seen_by.Detector
    verifier: seen_by.Verifier | None = None
    segmenter: seen_by.Segmenter | None = None
    depth: seen_by.DepthEstimator | None = None
    desk: WriterSession | None = None
    n_objects: int = 10
    least: int = 2
    vocabulary: tuple[str, ...] = field(default=CONTROLS, repr=False)

    def __call__(self, scene: Picture, draft: str) -> Textualized:
        """Correct and extend a draft, which may be empty."""
        found = self.measure(scene, self.detector.detect(scene)[: self.n_objects])
        phrases = self.phrases(draft, [o.label for o in found])
        named = {o.label for o in found}
        removed: tuple[str, ...] = ()
        if self.verifier is not None:
            removed = tuple(p for p in phrases if p not in named and not self.verifier.supports(scene, p))
        left = without(draft, removed)
        missing: dict[tuple[str, str], FoundObject] = {}
        for o in found if len(found) >= self.least else ():
            if not mentions(left, o.label):
                missing.setdefault((o.label, o.colour), o)  # of several that are alike, the surest
        added = tuple(missing.values())
        kept = "" if added or removed else "nothing to add or to remove"
        if len(found) < self.least and not removed:
            kept = f"fewer than {self.least} objects were found"
        if kept:
            description = draft
        elif self.desk is not None:
            description = self.desk.ask(rewrite_prompt(draft, removed, found), read_text)
        else:
            description = " ".join(filter(None, [left, *map(sentence_for, added)]))
        return Textualized(scene, draft, phrases, removed, found, added, description, kept)

    def measure(self, scene: Picture, found: Sequence[FoundObject]) -> tuple[FoundObject, ...]:
        """Measure the sizes and depths of objects with the available experts."""
        near = None if self.depth is None else self.depth.nearness(scene)
        rows = list(found)
        for i, o in enumerate(found if self.segmenter is not None else ()):
            mask = self.segmenter.segment(scene, o.box)  # type: ignore[union-attr]
            depth = float(near[mask].mean()) if near is not None and mask.any() else o.depth
            rows[i] = replace(o, size=round(float(mask.mean()), 4), depth=depth)
        return tuple(scaled_depths(rows))

    def phrases(self, draft: str, known: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the objects that a draft mentions."""
        if not draft.strip():
            return ()
        if self.desk is not None:
            return self.desk.ask(objects_prompt(draft), read_objects)
        return tuple(v for v in dict.fromkeys([*known, *self.vocabulary]) if mentions(draft, v))


def draft_prompt(image: bytes, seed: int = 0) -> Prompt:
    """Return the prompt that asks a vision-language writer to describe a JPEG picture."""
    user = (
        "Describe this picture so that someone who cannot see it knows what is on it: the view first, then the main "
        "things with their colours, shapes, materials and places, then what is around them. State only what you see."
    )
    return Prompt(user, "You describe pictures exactly and invent nothing.", (image,), max_tokens=400, seed=seed)


def objects_prompt(draft: str) -> Prompt:
    """Return the prompt that asks for the objects that a draft states as certain."""
    user = (
        "List the things that this description says are on the picture, each once, as short noun phrases without an "
        "article. Leave out what it only supposes, and what cannot be touched, such as moods, light or weather.\n\n"
        "Description: A black dog lies on a sofa, perhaps waiting for its owner. The mood is calm.\n"
        'Answer: {"objects": ["black dog", "sofa"]}\n\n'
        f"Description: {draft}\nAnswer:"
    )
    return Prompt(user, "You answer in JSON.", max_tokens=300, schema=OBJECTS_SCHEMA)


def read_objects(answer: str) -> tuple[str, ...]:
    """Parse the unique phrases from a JSON answer; raise ``ValueError`` if it does not match the schema."""
    data = read_json(answer)
    rows = data.get("objects") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
        raise ValueError("it has no list of texts called 'objects'")
    return tuple(dict.fromkeys(row.strip().rstrip(".") for row in rows if row.strip(" .")))


def rewrite_prompt(draft: str, removed: Sequence[str], found: Sequence[FoundObject]) -> Prompt:
    """Return the prompt that asks to remove the absent objects from a draft and to add the measured objects."""
    lines = []
    for o in found:
        box = ", ".join(f"{v:.2f}" for v in o.box)
        size = "" if o.size is None else f"; size {100 * o.size:.2f} %"
        depth = "" if o.depth is None else f"; nearness {o.depth:.2f}"
        lines.append(f"- {' '.join(filter(None, (o.colour, o.label)))}; box [{box}]{size}{depth}")
    user = (
        "Rewrite the description below so that it is more detailed and correct.\n"
        "You get things that were measured on the picture: a box [left, top, right, bottom] as fractions of the "
        "picture, the part of the picture in per cent, and nearness from 0 (far) to 1 (near) among these things.\n"
        "Rules: 1. Take out every thing listed as not there, with all that is said of it. 2. Add measured things that "
        "are missing; several may be the same thing, so do not say it twice. 3. Say places, distances and sizes in "
        "words, never as numbers, and sizes only when they are very small or very large. 4. Keep all else, also "
        "remarks on view and style. 5. Answer with the description alone.\n\n"
        f"Not there: {', '.join(removed) or 'nothing'}\nMeasured:\n{chr(10).join(lines)}\n\nDescription: {draft}"
    )
    return Prompt(user, "You edit descriptions of pictures and invent nothing.", max_tokens=900)


def read_text(answer: str) -> str:
    """Return the description without enclosing quotation marks; raise ``ValueError`` if it is empty."""
    text = answer.strip().strip('"').strip()
    if not text:
        raise ValueError("it is empty")
    return text


def mentions(text: str, phrase: str) -> bool:
    """Check whether a text contains a phrase as whole words, in singular or plural.

    >>> mentions("Two red cups.", "red cup"), mentions("A cupboard.", "cup"), mentions("Ripe cherries", "cherry")
    (True, False, True)
    """
    finder = naming(phrase)
    return finder is not None and finder.search(text) is not None


def without(text: str, phrases: Sequence[str]) -> str:
    """Remove statements about these objects from a text.

    In a sentence that lists objects, only the items that name one of the ``phrases`` are removed. If the first item of
    the list names a phrase, the whole sentence is removed.

    >>> without("There is a red cup, a plate and a dog. The dog sleeps. A cat sits.", ["dog"])
    'There is a red cup and a plate. A cat sits.'
    """
    if not phrases:
        return text
    return " ".join(filter(None, (_cleaned(sentence, phrases) for sentence in _SENTENCE.findall(text))))


def _cleaned(sentence: str, phrases: Sequence[str]) -> str:
    if not any(mentions(sentence, p) for p in phrases):
        return sentence
    body = sentence.rstrip(".!?")
    parts = _JOINT.split(body)[::2]
    good = [part for part in parts if not any(mentions(part, p) for p in phrases)]
    # An item is a noun with its article; anything else after a comma is a statement of its own.
    items = all(_ITEM.match(part.strip()) for part in parts[1:])
    if len(parts) < 2 or not items or not good or good[0] is not parts[0]:
        return ""
    joined = good[0] if len(good) == 1 else f"{', '.join(good[:-1])} and {good[-1]}"
    return joined.rstrip() + sentence[len(body) :]


def position_in_words(box: FractionBox) -> str:
    """Describe the position of a box's centre, by thirds of the picture."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    down = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else ""
    if across:
        return f"in the {down} {across}" if down else f"on the {across}"
    return {"upper": "at the top", "lower": "at the bottom", "": "in the middle"}[down]


def size_in_words(size: float | None) -> str:
    """Describe a very small or very large size in words."""
    if size is None or SMALL <= size <= LARGE:
        return ""
    return "very small" if size < SMALL else "very large"


def depth_in_words(depth: float | None) -> str:
    """Describe whether an object is near or far; ``depth`` is scaled to 0…1 over the listed objects."""
    if depth is None or FAR < depth < NEAR:
        return ""
    return "close to the viewer" if depth >= NEAR else "far in the background"


def scaled_depths(found: Sequence[FoundObject]) -> list[FoundObject]:
    """Scale the depths of the objects to 0…1, rounded to two decimals; equal depths become ``None``."""
    depths = [o.depth for o in found if o.depth is not None]
    if not depths or max(depths) - min(depths) <= 0:
        return [replace(o, depth=None) for o in found]
    low, span = min(depths), max(depths) - min(depths)
    return [o if o.depth is None else replace(o, depth=round((o.depth - low) / span, 2)) for o in found]


def article(words: str) -> str:
    """Add *a* or *an* before the words.

    >>> article("orange cup"), article("red cup")
    ('an orange cup', 'a red cup')
    """
    return f"{'an' if words[:1].casefold() in 'aeiou' else 'a'} {words}"


def sentence_for(found: FoundObject) -> str:
    """Return a sentence that describes one object.

    >>> sentence_for(FoundObject("cup", (0.0, 0.7, 0.2, 1.0), colour="red", size=0.01, depth=1.0))
    'There is a very small red cup in the lower left, close to the viewer.'
    """
    colour = "" if found.colour.casefold() in found.label.casefold() else found.colour
    words = " ".join(filter(None, (size_in_words(found.size), colour, found.label.replace("_", " "))))
    near = depth_in_words(found.depth)
    return f"There is {article(words)} {position_in_words(found.box)}{f', {near}' if near else ''}."


@dataclass(frozen=True)
class Drafter:
    """A source of first drafts: the texts in ``drafts``, a vision-language writer, or the classifier's prediction."""

    classifier: Deciding
    desk: WriterSession | None = None
    drafts: Mapping[str, str] | None = None

    def __call__(self, scene: Picture) -> str:
        if self.drafts is not None:
            return self.drafts.get(Path(scene.name).name, "")
        if self.desk is not None:
            return self.desk.ask(draft_prompt(jpeg(scene.name, scene.original_size)), read_text)
        encoded = seen_by.look_at(self.classifier, scene.name)
        with torch.no_grad():
            probabilities = self.classifier.head.probabilities(encoded.pooled[:1])[0]
        best = int(probabilities.argmax())
        if float(probabilities[best]) < 0.5:  # a guess
            return ""
        return f"A photo of {article(self.classifier.classes[best].replace('_', ' '))}."


def offline(
    classifier: Deciding, *, desk: WriterSession | None = None, check: bool = True, threshold: float = 0.5
) -> Textualizer:
    """Return the pipeline with SeeWhy's built-in experts, which need no network access."""
    verifier = seen_by.CellVerifier(classifier) if check else None
    vocabulary = tuple(dict.fromkeys([*classifier.classes, *CONTROLS])) if len(classifier.classes) <= 500 else CONTROLS
    detector = seen_by.CellDetector(classifier, threshold)
    return Textualizer(detector, verifier, seen_by.BoxSegmenter(), desk=desk, vocabulary=vocabulary)


def textualize_all(
    names: Iterable[str], textualizer: Textualizer, drafter: Drafter, output: Path, made_by: str, *, force: bool = False
) -> Iterator[dict[str, Any] | Failure]:
    """Describe pictures and append each result to the output file before the next picture is read.

    A picture that the file already describes with the same ``made_by`` is skipped.
    """
    journal = Journal(output, DESCRIPTIONS, force=force, sync=True)
    done = {row["digest"]: row for row in journal.rows if row["made_by"] == made_by}
    with journal:
        for name in names:
            try:
                scene = read_picture(name, WHOLE)
                if scene.digest in done:
                    yield {**done[scene.digest], "image": name, "known": True}
                    continue
                record = {**textualizer(scene, drafter(scene)).to_json(), "made_by": made_by}
            except NoWriterError:
                raise
            except (ImageError, WriterError) as error:
                yield Failure(name, error.reason if isinstance(error, ImageError) else str(error))
                continue
            journal.add(record)
            done[scene.digest] = record
            yield record


def read_drafts(path: Path) -> list[tuple[str, str]]:
    """Read file names and texts from lines of ``{"image": …, "description": …}``."""
    try:
        rows = json_lines(read_file(path).decode("utf-8-sig"))
        return [(Path(str(row["image"])).name, str(row["description"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{path} must have lines of {{"image": …, "description": …}}, but reading it failed: {error!r}. Correct '
            "it, or give another file with -o."
        ) from error


def jpeg(name: str, size: tuple[int, int], longest: int = LONGEST, quality: int = 85) -> bytes:
    """Encode a picture as JPEG, upright and with its longest side at most ``longest`` pixels."""
    scale = min(1.0, longest / max(size))
    own = (max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))
    pixels = read_picture(name, Transform(own, own, "bilinear", (0, 0, 0), (1, 1, 1))).pixels
    return encode_thumbnail(pixels, quality)


def estimate(names: Iterable[str], desk: WriterSession, drafts: Mapping[str, str] | None = None) -> Estimate:
    """Estimate the largest cost of a run without sending anything.

    A missing draft counts as 1,600 characters.
    """
    prompts = []
    for number, name in enumerate(names):
        try:
            scene = read_picture(name, WHOLE)
        except ImageError:
            continue
        text = "x" * 1600 if drafts is None else drafts.get(Path(name).name, "")
        prompts += [draft_prompt(jpeg(scene.name, scene.original_size))] if drafts is None else []
        # What follows the draft is not known yet, and is nobody's answer.
        prompts += [replace(p, seed=-1 - number) for p in (objects_prompt(text), rewrite_prompt(text, (), ()))]
    return desk.estimate(prompts)
