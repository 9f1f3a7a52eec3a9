"""Explanations of single boxes and segments."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..classifiers.base import Classifier
from ..descriptions.base import Descriptions, Words
from ..encoders.stream import Encoded, file_digest
from ..errors import DataError, ImageError, InputError
from ..evidence.batch import FORMS, CardFolder, Done, as_before, check_output, streamed, write_card
from ..evidence.case import Watched
from ..evidence.explain import ExplainOptions, explain_seen
from ..evidence.faithfulness import STILL_ODDS, STILL_VALUE
from ..explanation.base import Explanation, Where
from ..explanation.part import Outside, Part, PartBox
from ..explanation.prediction import Ranked
from ..explanation.similar import Like
from ..explanation.verdict import Level, Missing, Verdict
from ..pictures.boxes import BoxedPicture, has_boxes, load_boxes
from ..pictures.images import upright_size
from ..pictures.pixel_classes import MaskedPicture, MaskedPictures, is_masked, load_masks
from ..pictures.samples import load_samples
from ..progress import Progress
from ..prototypes.bank import PatchBank
from ..prototypes.measure import Labelled, LikenessMeasure, trials
from ..prototypes.nearest import NearestPatches
from ..report import IndexEntry, render_index
from ..storage.features import FeatureStore
from ..types import Failure
from .finders import Detector, Finder
from .parts import PartEngine, PartPlace, PooledScore, WholePicture, part_encoder, part_picture, place_of
from .regions import Detections, Segmentation

N_ELSEWHERE, N_TRIED, MOSTLY, HALF = 4, 64, 0.7, 0.5
"""Number of control positions, number of candidates for them, and thresholds of the inner share for the verdict."""
RULE = (
    "SeeWhy hides the part, then everything else, then both, and measures the odds of the part's name. Shapley values "
    "of inside and outside give the share of the score that comes from inside. The score is believable if this share "
    f"is at least {MOSTLY:.2f} and hiding the part lowers the odds more than hiding the same shape in any of "
    f"{N_ELSEWHERE} other places. It is partly believable if this share is at least {HALF:.2f}. Otherwise do not rely "
    "on the score, because most of it comes from pixels that the heat does not show. These limits were chosen, not "
    "measured."
)
UNJUDGED = Verdict("not measured", "", RULE)


def measure_outside(
    watched: Watched, pixels: Float[Tensor, "3 h w"], inside: Bool[Tensor, "h w"], kind: str, seed: int
) -> Outside:
    """Compute how much of a score comes from pixels outside a box or segment."""
    nothing = torch.zeros_like(inside)
    hidden = torch.stack([nothing, inside, ~inside, ~nothing, *elsewhere(inside, seed)])
    found = watched.read(torch.where(hidden[:, None], 0.0, pixels))
    values, odds = found[:, 0].tolist(), found[:, 1].double()
    whole, outer, inner, gone = odds[:4].tolist()
    falls = tuple((whole - odds[4:]).tolist())
    of_inside, of_outside = (abs(alone - gone + whole - rest) / 2 for alone, rest in ((inner, outer), (outer, inner)))
    total = of_inside + of_outside
    share = of_inside / total if total > 1e-9 else 0.0
    outside = Outside(values[0], values[1], values[2], whole - outer, whole - inner, falls, share, UNJUDGED)
    still = float(odds.max() - odds.min()) < STILL_ODDS and max(values) - min(values) < STILL_VALUE
    return replace(outside, verdict=_judge(outside, kind, still))


def elsewhere(inside: Bool[Tensor, "h w"], seed: int) -> Bool[Tensor, "n h w"]:
    """Return copies of the mask, shifted cyclically to positions with the least overlap."""
    generator = torch.Generator().manual_seed(seed)
    moves = torch.stack([torch.randint(side, (N_TRIED,), generator=generator) for side in inside.shape], 1).tolist()
    moved = torch.stack([inside.roll(move, (0, 1)) for move in moves])
    overlap = (moved & inside).sum((1, 2))
    return moved[overlap.argsort(stable=True)[:N_ELSEWHERE]]


def _judge(found: Outside, kind: str, still: bool) -> Verdict:
    if still:
        said = f"Hiding pixels inside or around this {kind} hardly changes its score, so nothing can be measured."
        return Verdict("not measured", said, RULE)
    most = f"{max(found.falls_elsewhere):.2f}".replace("-", "−")
    figures = f"Hiding the same shape in {N_ELSEWHERE} other places lowers the log-odds by at most {most}."
    level: Level = "partly"
    if found.share_inside < HALF:
        level, said = "do not rely", f"Most of the score comes from outside this {kind}, where the heat shows nothing."
    elif found.share_inside < MOSTLY:
        said = f"Only part of the score comes from inside this {kind}."
    elif found.fall_inside > max(0.0, *found.falls_elsewhere):
        level, said = "believable", f"Most of the score comes from inside this {kind}."
    else:
        said = f"Hiding this {kind} lowers its score no more than hiding another place of the same shape."
    return Verdict(level, said, RULE, figures)


T = TypeVar("T", Where | Missing, Like | Missing)
HIDING = "occlusion"
MOST = 20
"""Default number of explanations per picture."""
Found = Detections | Segmentation
NO_WORDS = Missing(
    "The features of this method cannot be compared with words.",
    "Find the part with --labels and a method that scores sentences: maskclip or word_regions.",
)
NO_PICTURES = Missing(
    "No pictures of yours were given to compare this part with.",
    "Give pictures with --known: folders of one class each, or pictures with boxes or masks.",
)


@dataclass(frozen=True, eq=False)
class PartExplainer:
    """An explainer of single boxes or segments."""

    finder: Finder
    score: PooledScore = field(repr=False)
    model: Classifier = field(repr=False)

    @classmethod
    def of(cls, finder: Finder, descriptions: Words | None = None, store: FeatureStore | None = None) -> PartExplainer:
        score = finder.pooled()
        model = Classifier(score.method, score.parameters, score.reader.encoder, score.classes, score.head)
        if descriptions is not None:
            if score.text(lambda: torch.zeros(1)) is None:
                raise InputError(
                    f"{score.method} cannot compare objects with descriptions. Leave the descriptions out, or choose "
                    "maskclip or word_regions."
                )
            own = Descriptions.given(descriptions).texts
            # Classes other than objects have no user descriptions, so their name is used.
            rest = {name: (name,) for name in score.classes if name not in finder.classes}
            model = model.with_descriptions(Descriptions({**rest, **own}), store)
        return cls(finder, score, replace(model, trained_on=score.trained_on))

    def options(self, options: ExplainOptions) -> ExplainOptions:
        if self.score.reads is not None and options.where is None:
            options = replace(options, where=HIDING)
        method = options.method(self.model.where)
        asked = {
            "an inner layer": options.layer, "neurons": options.neurons, "because": options.because,
            "prototypes": options.prototypes, "a typical picture": options.typical, "likenesses by name": options.like,
            method.name: method.needs_attention or method.needs_training or method.needs_words or method.recipe,
        }  # fmt: skip
        if wrong := [name for name, value in asked.items() if value]:
            raise InputError(
                f"A box or segment cannot be explained with {wrong[0]}. Use only grad_cam, occlusion or rise."
            )
        if self.score.reads is not None and not method.needs_pixels:
            raise InputError(
                f"The method {method.name} cannot explain a box of the detector {self.score.method}. Choose occlusion "
                "or rise."
            )
        return options

    def explain(
        self, picture: Any, found: Found, options: ExplainOptions, numbers: Iterable[int] | None = None
    ) -> Iterator[Explanation]:
        options = self.options(options)
        parts = parts_of(found)
        chosen = range(1, min(len(parts), MOST) + 1) if numbers is None else sorted(numbers)
        if not chosen:
            return
        whole = WholePicture(self.score, picture)
        small = whole.small()
        for number in chosen:
            yield self._explained(whole, replace(parts[number - 1], picture=small), options)

    def _explained(self, whole: WholePicture, part: Part, options: ExplainOptions) -> Explanation:
        place = place_of(whole, part.box, part.mask)
        model, seen, view, frame = self.look(whole, place)
        target = options.target if options.target is not None else part.label
        own = options if options.target_text is not None else replace(options, target=target)
        (made,) = explain_seen(model, [seen], own)
        part = replace(part, frame=frame)
        if options.measure:
            on_whole = replace(model, encoder=part_encoder(PartEngine(whole, place, anywhere=True)))
            watched = Watched(on_whole, model.index_of(target))
            outside = measure_outside(watched, whole.pixels, place.inside, part.kind, options.seed)
            part = replace(part, outside=outside)
        decided = made.prediction
        if part.label in model.classes:  # the part's own class first, then the others
            score = float(model.head.probabilities(seen.pooled)[0][model.classes.index(part.label)])
            others = [one for one in decided.top if one.label != part.label][: len(decided.top) - 1]
            decided = replace(decided, top=(Ranked(part.label, score), *others), decision=None)
        subject = made.subject and replace(made.subject, decision=decided.label)
        like = NO_PICTURES if isinstance(made.like, Missing) and model.bank is None else _of_parts(made.like, part)
        words = made.words if model.encoder.has_text else NO_WORDS
        where = _of_parts(made.where, part)
        made = replace(made, where=where, like=like, words=words)
        return replace(made, prediction=decided, view=view, subject=subject, part=part, in_view=1.0)

    def look(self, whole: WholePicture, place: PartPlace) -> tuple[Classifier, Encoded, np.ndarray, PartBox]:
        """Return a classifier of the box or segment, the encoded part, its displayed crop and its position."""
        model = replace(self.model, encoder=part_encoder(PartEngine(whole, place)), head=place.head)
        features, (picture, view, frame) = place.cut(whole.own_cells), part_picture(whole, place)
        seen = Encoded(picture.name, picture.digest, model.encoder.head(features), features[0], picture)
        return model, seen, view, frame


def _of_parts(evidence: T, part: Part) -> T:
    """Adapt the texts of a verdict to a box or segment."""
    if isinstance(evidence, Missing):
        return evidence
    texts = {}
    for name in ("sentence", "figures", "rule"):
        text = getattr(evidence.verdict, name).replace("of the picture", f"of the {part.kind}")
        texts[name] = text.replace("held-out pictures", "parts of held-out pictures")
    return replace(evidence, verdict=replace(evidence.verdict, **texts))


def parts_of(found: Found) -> list[Part]:
    """Return all boxes, highest score first, or all segments, largest first."""
    nothing, frame = np.zeros((1, 1, 3), np.uint8), (0.0, 0.0, 1.0, 1.0)
    kind: Literal["box", "segment"] = "segment" if isinstance(found, Segmentation) else "box"
    n, parts = len(found.regions), []
    for i, region in enumerate(found.regions, 1):
        left, top, right, bottom = map(float, region.box)
        part = Part(kind, i, n, region.label, region.score, (left, top, right, bottom), found.size, nothing, frame)
        if isinstance(found, Segmentation):
            part = replace(part, mask=found.mask_of(region.label), rle=found.regions[i - 1].rle)
        parts.append(part)
    return parts


MOST_PICTURES, MOST_PARTS = 120, 6
"""Largest number of pictures to encode, and of examples per picture."""


Given = BoxedPicture | tuple[MaskedPictures, MaskedPicture] | str
"""The boxes, the mask or the class of a picture."""


class Example(NamedTuple):
    """A known object in a picture; without a box and a mask, it is the whole picture."""

    label: str
    box: PartBox
    mask: np.ndarray | None = None


def with_examples(explainer: PartExplainer, source: str | Path, progress: Progress | None = None) -> PartExplainer:
    """Return the explainer with known objects to compare with."""
    progress, classes = progress or Progress(), explainer.finder.classes
    given = list(_given(Path(source), isinstance(explainer.finder, Detector)))
    chosen = given[:: max(1, -(-len(given) // MOST_PICTURES))]
    seen: list[Known] = []
    others: set[str] = set()
    for number, (image, known) in enumerate(progress.track(chosen, "Looking at examples", len(chosen))):
        try:
            examples = _things(known, upright_size(image))
            others |= {e.label for e in examples} - set(classes)
            seen += _looked(explainer, image, _spread([e for e in examples if e.label in classes]), number)
        except ImageError as error:
            progress.failed(Failure(error.path, error.reason))
    if others:
        progress.note(
            f"{len(others)} class(es) of the examples are not among the names to find: {', '.join(sorted(others)[:5])}"
        )
    if not seen:
        raise DataError(
            f"No picture in {source} shows one of {', '.join(classes[:5])}. Give pictures with boxes, masks or class "
            "folders of these names."
        )
    half, held = ([one for one in seen if one.number % 2 == odd] for odd in (0, 1))
    model = replace(explainer.model, bank=_bank(seen), likeness=_measured(half, held, len(classes)))
    return replace(explainer, model=model)


class Known(NamedTuple):
    """An encoded example with its class and the index of its picture."""

    seen: Encoded
    label: int
    number: int
    model: Classifier


def _looked(explainer: PartExplainer, image: str, examples: list[Example], number: int) -> Iterator[Known]:
    if not examples:
        return
    whole = WholePicture(explainer.score, image)
    for example in examples:
        model, seen, _, _ = explainer.look(whole, place_of(whole, example.box, example.mask))
        yield Known(seen, explainer.score.classes.index(example.label), number, model)


def _bank(known: list[Known]) -> PatchBank:
    built = PatchBank.build(known[0].model, [one.seen for one in known], [one.label for one in known])
    # Parts of one class may be as similar as copies, so copies are recognised by bytes only.
    return replace(built, pooled=torch.zeros_like(built.pooled))


def _measured(half: list[Known], held: list[Known], n_classes: int) -> LikenessMeasure | None:
    """Measure how often the most similar examples have the predicted class."""
    if not half:
        return None
    bank = _bank(half)
    real = [one for one in held if int(one.model.head(one.seen.pooled).argmax()) < n_classes]
    found = (trials(one.model, NearestPatches(), bank, [Labelled(one.seen, one.label)], len(real)) for one in real)
    return LikenessMeasure.of([one for some in found for one in some])


def _given(source: Path, boxes_first: bool) -> Iterator[tuple[str, Given]]:
    """Yield pictures with their boxes, mask or class."""
    if has_boxes(source) and (boxes_first or not is_masked(source)):
        yield from ((picture.image, picture) for picture in load_boxes(source).present().pictures)
    elif is_masked(source):
        data = load_masks(source)
        yield from ((item.image, (data, item)) for item in data.items)
    else:
        yield from ((sample.image, sample.label) for sample in load_samples(source).items)


def _things(known: Given, size: tuple[int, int]) -> list[Example]:
    if isinstance(known, BoxedPicture):
        return [Example(one.label, one.box) for one in known.boxes]
    whole = (0.0, 0.0, float(size[0]), float(size[1]))
    if isinstance(known, str):
        return [Example(known, whole)]
    data, (truth, _) = known[0], known[0].truth(known[1], size)
    return [Example(data.classes[k], whole, truth == k) for k in np.unique(truth) if k < len(data.classes)]


def _spread(examples: list[Example]) -> list[Example]:
    """Return up to :data:`MOST_PARTS` examples, spread evenly over the classes."""
    turn: Counter[str] = Counter()
    ordered = []
    for example in examples:
        turn[example.label] += 1
        ordered.append((turn[example.label], example))
    return [example for _, example in sorted(ordered, key=lambda one: one[0])[:MOST_PARTS]]


@dataclass
class PartBatch:
    """A resumable job that explains boxes or segments and writes a folder of cards."""

    explainer: PartExplainer
    options: ExplainOptions
    output: Path | None
    _: KW_ONLY
    most: int = MOST
    png: bool = False
    force: bool = False
    progress: Progress = field(default_factory=Progress)
    n_pictures: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.output is not None and check_output(self.output, force=self.force):
            raise InputError(f"The output for boxes or segments must be a folder, got the file {self.output}.")
        self.options = self.explainer.options(self.options)
        self.endings = tuple(FORMS) if self.png else (".html",)

    def run(self, names: Iterable[str]) -> Iterator[Done | Failure]:
        """Explain the pictures in order, and write each card at once."""
        if self.output is None:
            yield from self._explained(names, None)
            return
        with closing(CardFolder(self.output, force=self.force)) as folder:
            own = (name for name in names if not folder.is_own(name))
            if not (yield from streamed(self._explained(own, folder), folder, self._page)):
                folder.finish([], self._page([], []))  # write an empty result

    def _page(self, entries: list[IndexEntry], failures: list[Failure]) -> str:
        nouns = ("box", "boxes") if isinstance(self.explainer.finder, Detector) else ("segment", "segments")
        return render_index(entries, failures, nouns[1].capitalize(), nouns)

    def _explained(self, names: Iterable[str], folder: CardFolder | None) -> Iterator[Any]:
        """Yield the results with their index entries."""
        model = self.explainer.model
        fingerprint = f"{model.digest}|{model.encoder.engine.name}|{self.options}|{self.endings}"
        for name in names:
            try:
                found = self.explainer.finder.find(name)
            except ImageError as error:
                yield Failure(name, error.reason)
                continue
            self.n_pictures += 1
            parts = parts_of(found)
            if len(parts) > self.most or not parts:
                left = (
                    f"{len(parts) - self.most} of {len(parts)} parts are not explained; --set most_cards explains more"
                )
                self.progress.note(f"{name}: {left if parts else 'nothing was found'}")
            keys = {}
            for part in parts[: self.most]:
                told = f"{name}|{file_digest(name)}|{part.to_json()}|{fingerprint}"
                keys[part.number] = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()
            earlier = {} if folder is None else {number: folder.earlier(key) for number, key in keys.items()}
            new = [number for number in keys if earlier.get(number) is None]
            made = self.explainer.explain(name, found, self.options, new)
            for number, key in keys.items():
                line = earlier.get(number)
                if folder is None:
                    result = next(made)
                    yield Done({**result.to_json(), "card": None}, result)
                else:
                    yield self._written(key, folder, next(made)) if line is None else as_before(line, folder)

    def _written(self, key: str, folder: CardFolder, result: Explanation) -> tuple[Done, IndexEntry]:
        assert result.part is not None
        part = result.part
        # What follows the last dot would be taken for the ending of a picture's name.
        name = f"{Path(result.prediction.image).with_suffix('')} {part.kind} {part.number} {part.label}."
        return write_card(result, folder, key, name, self.endings)
