"""The one look: a picture goes in, an :class:`~seewhy.explanation.base.Explanation` comes out."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..attributions import Attribution, attributions
from ..attributions.shares import cell_evidence, shares, strongest_cells
from ..classifiers.certainty import check_level
from ..encoders.base import EncoderOutput
from ..encoders.stream import Encoded, EncodeRequest, encode_stream
from ..errors import InputError
from ..explanation.base import Explanation, Neuron
from ..explanation.prediction import Prediction
from ..explanation.similar import Like
from ..explanation.subject import Subject
from ..heads.head import Target, TargetFunction
from ..parameters import configured
from ..pictures.object_masks import MaskSource
from ..storage.features import FeatureStore
from ..threads import each_beside
from ..trust.base import LEVEL
from ..types import Failure
from .agreement import agree
from .complement import Complement
from .like import LikeQuery, show_like
from .neurons import show_neurons
from .outside import show_outside
from .perceived import show_perceived
from .rival import Rival
from .sentences import Sentences
from .where import regions, show_where
from .words import WordScores, show_words, word_scores, words_heat

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..encoders.base import Encoder
    from ..generation.typical import Typicals


@dataclass(frozen=True)
class ExplainOptions:
    """What to explain and how.

    Attributes:
        where: registered attribution, or one made by hand, as :mod:`seewhy.compat` makes them; left out, the
            classifier's own, or Grad-CAM.
        layer: inner layer of the trunk that the map is read from; left out, the encoder's last map.
        target: class to explain, by its name or its number; left out, the predicted one.
        contrast: class to explain the target against, by its name or its number; left out, none.
        target_text: sentence whose similarity to the picture is explained by *where*, not a class.
        contrast_text: sentence the target sentence is explained against.
        settings: fields of the method that *where* names, for example ``{"n_masks": 2000}``; kept as sorted pairs.
        like: registered way of finding likenesses; left out, EPIC where the classifier has its prototypes, else its
            own: a ProtoPNet's, the pictures that voted, or nearest patches.
        prototypes: where EPIC's prototypes lie; left out, the classifier's own folder.
        because: strengths of the changes that show what likenesses rest on, ``"calibrated"`` or ``"paper"``; left
            out, this is not measured.
        neurons: how many channels that speak most for the target, and against it, are listed with their names.
        measure: whether deletion and insertion are run.
        n_regions: lettered regions.
        top: classes listed.
        level: how often the true class is to be among those named by the decision.
        typical: the folder of a generator that makes typical pictures of the class, once for
            each class; left out, none are made.
        judge: a second network that says what is on them: a classifier, or an encoder with words.
        seed: of shuffled maps and ties.
        objects: who says where the object is, for the part of the heat outside it; left out, this is not measured.
    """

    where: str | Attribution | None = None
    target: str | int | None = None
    contrast: str | int | None = None
    measure: bool = True
    n_regions: int = 3
    top: int = 5
    seed: int = 0
    layer: str | None = None
    target_text: str | None = None
    contrast_text: str | None = None
    settings: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()
    neurons: int = 0
    like: str | None = None
    prototypes: str | Path | None = None
    because: str | None = None
    level: float = LEVEL
    typical: str | Path | Typicals | None = None
    judge: Classifier | Encoder | None = None
    objects: MaskSource | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_level(self.level)
        object.__setattr__(self, "settings", tuple(sorted(dict(self.settings).items())))
        if self.objects is not None and not callable(getattr(self.objects, "mask", None)):
            raise InputError(
                f"objects={self.objects!r} was given. Who says where the object is, such as MaskFiles of "
                "seewhy.pictures.object_masks, was expected. Give one, or leave it out."
            )
        if self.judge is not None and self.typical is None:
            raise InputError(
                "A judge was given, and no generator. It judges typical pictures of the class, which a generator "
                "makes. Give typical=FOLDER, or --typical FOLDER, or leave the judge out."
            )

    def opened(self, classifier: Classifier) -> ExplainOptions:
        """The same, with the generator read, so that all that follows makes each class once."""
        if not isinstance(self.typical, str | Path):
            return self
        from ..classifiers.base import Classifier
        from ..encoders.base import Encoder
        from ..generation.typical import Typicals

        if self.judge is not None and not isinstance(self.judge, Classifier | Encoder):
            raise InputError(
                f"The judge is {type(self.judge).__name__!r}. A classifier, or an encoder with words, was expected. "
                "Load one with seewhy.load or seewhy.encoder."
            )
        return replace(self, typical=Typicals.open(self.typical, classifier, self.judge), judge=None)

    def method(self, own: str = "grad_cam") -> Attribution:
        """What *where* names, with the settings and at the layer asked for; ``own`` where it names nothing."""
        given = dict(self.settings)
        if isinstance(self.where, Attribution):
            if self.layer is not None:
                raise InputError("An attribution made by hand and a layer were given. Make it with its layer.")
            return configured(self.where, given)
        name = own if self.where is None else self.where
        found: Any = attributions[name]
        if self.layer is None:
            return configured(found, given)
        if "layer" in given:
            raise InputError(f"The layer was given twice, as {self.layer!r} and as a setting. Drop one of them.")
        if not reads_layer(found):
            able = ", ".join(name for name in attributions if reads_layer(attributions[name]))
            raise InputError(f"{name} reads no layer, and {self.layer!r} was given. These do: {able}.")
        return configured(found, {**given, "layer": self.layer})

    def label(self, method: Attribution) -> str:
        """The method's name with its layer and its settings, for cards."""
        place = "" if self.layer is None else f" at {self.layer}"
        return f"{method.name}{place}" + (
            f" with {', '.join(f'{name}={value}' for name, value in dict(self.settings).items())}"
            if self.settings
            else ""
        )


def reads_layer(method: type[Attribution]) -> bool:
    """Whether a method can be told an inner layer."""
    return "layer" in {f.name for f in fields(method)}  # type: ignore[arg-type]


def speaks_against(method: Attribution) -> bool:
    """Whether a method's map shows what speaks against the target."""
    return bool(getattr(method, "counterfactual", False))


def explain_all(
    classifier: Classifier,
    sources: Iterable[Any],
    options: ExplainOptions,
    *,
    store: FeatureStore | None = None,
    batch_size: int = 16,
) -> Iterator[Explanation | Failure]:
    """Explain pictures as a stream, in order."""
    asked, options = _ask(classifier, options), options.opened(classifier)
    request = EncodeRequest(features=lambda _index: True, pictures=True)
    stream = encode_stream(classifier.encoder, sources, store=store, request=request, batch_size=batch_size)
    while batch := list(itertools.islice(stream, batch_size)):
        good = [s for s in batch if isinstance(s, Encoded)]
        made = _beside_engine(classifier, good, options, *asked) if good else iter(())
        for one in batch:
            yield one if isinstance(one, Failure) else next(made)


def explain_seen(classifier: Classifier, seen: Sequence[Encoded], options: ExplainOptions) -> Iterator[Explanation]:
    """Explain pictures whose feature maps and pixels are given; no trunk runs but to measure."""
    return _beside_engine(classifier, seen, options.opened(classifier), *_ask(classifier, options))


def _ask(
    classifier: Classifier, options: ExplainOptions
) -> tuple[Attribution, int | None, int | None, Sentences | None]:
    """Method, target, contrast and sentences that the options name."""
    method = options.method(classifier.where)
    sentences = Sentences.of(classifier.encoder, options.target_text, options.contrast_text)
    if sentences is not None and (options.target, options.contrast) != (None, None):
        raise InputError("A class and a sentence were both given as target. One of them was expected. Drop the other.")
    if speaks_against(method) and (options.contrast, options.contrast_text) != (None, None):
        raise InputError(
            "A contrast and a counterfactual map were both given. What speaks against one rather than another is what "
            "speaks for the other. Exchange --target and --contrast, and leave counterfactual out."
        )
    target = None if options.target is None else classifier.index_of(options.target)
    contrast = None if options.contrast is None else classifier.index_of(options.contrast)
    given = (target, contrast) if sentences is None else (options.target_text, options.contrast_text)
    if given[0] is not None and given[0] == given[1]:
        raise InputError("Target and contrast are the same. Two different ones were expected. Change one of them.")
    return method, target, contrast, sentences


def _beside_engine(classifier: Classifier, *given: Any) -> Iterator[Explanation]:
    return each_beside(classifier.encoder.engine.name, _explain_batch(classifier, *given))


def _explain_batch(
    classifier: Classifier,
    seen: Sequence[Encoded],
    options: ExplainOptions,
    method: Attribution,
    target: int | None,
    contrast: int | None,
    sentences: Sentences | None,
) -> Generator[Explanation, None, None]:
    views = [s.picture.pixels for s in seen if s.picture is not None]
    pixels = classifier.encoder.pixels(views) if method.reads_pixels else None
    features = torch.stack([s.features for s in seen if s.features is not None])
    look = EncoderOutput(features, torch.cat([s.pooled for s in seen]), pixels)
    probabilities = classifier.head.probabilities(look.pooled)
    index = probabilities.argmax(1) if target is None else torch.full((len(seen),), target)
    # Where the contrast itself is decided for, it is explained rather than the next class.
    others = [
        contrast if k != contrast else runner_up(p, k) for p, k in zip(probabilities, index.tolist(), strict=True)
    ]
    goal: TargetFunction = Target(index, None if contrast is None else torch.tensor(others))
    subject: Any = classifier
    if sentences is not None:
        subject, goal = sentences, sentences.goal(len(seen))
    heats = method(subject, look, goal)
    evidence = cell_evidence(subject, look, goal)
    share = shares(-evidence if speaks_against(method) else evidence)
    grids = classifier.encoder.layout.to_grid(look.features)
    neurons = show_neurons(classifier, subject, look, goal, [s.picture for s in seen], options.neurons)
    rivals = [
        runner_up(p, k) if other is None else other
        for p, k, other in zip(probabilities, index.tolist(), others, strict=True)
    ]
    scored = word_scores(classifier, look.pooled)
    spoken = words_heat(classifier, grids, look.pooled, index.tolist(), rivals)
    for i, one in enumerate(seen):
        found = _assemble(
            classifier,
            one,
            options,
            probabilities[i],
            int(index[i]),
            others[i],
            heats[i],
            share[i],
            neurons[i],
            rival=rivals[i],
            scored=None if scored is None else scored[i],
            spoken=None if spoken is None else spoken[i],
            method=method,
            sentences=sentences,
        )
        typicals: Any = options.typical
        yield found if typicals is None else replace(found, typical=typicals.of(int(index[i])))


def _assemble(
    classifier: Classifier,
    one: Encoded,
    options: ExplainOptions,
    probabilities: torch.Tensor,
    target: int,
    contrast: int | None,
    heat: torch.Tensor,
    share: torch.Tensor,
    neurons: tuple[Neuron, ...],
    *,
    rival: int,
    scored: WordScores | None,
    spoken: torch.Tensor | None,
    method: Attribution,
    sentences: Sentences | None,
) -> Explanation:
    assert one.picture is not None
    assert one.features is not None
    cells = strongest_cells(share, options.n_regions)
    parts = regions(share, cells, one.picture)
    pixels = classifier.encoder.pixels([one.picture.pixels])[0] if options.measure else None
    subject: Classifier | Sentences = classifier if sentences is None else sentences
    against = speaks_against(method)
    look = EncoderOutput(one.features[None], one.pooled[:1])
    beside = None if sentences else Rival.of(classifier, method, look, pixels, probabilities, target, contrast)
    where = show_where(
        Complement(subject) if against else subject,
        heat,
        pixels,
        method=options.label(method),
        target=target if sentences is None else 0,
        contrast=contrast if sentences is None else sentences.contrast,
        parts=parts,
        seed=options.seed,
        rival=beside,
    )
    prediction = classifier.prediction(one.name, probabilities, options.top, one.pooled[0], options.level)
    about = _subject(classifier, options, prediction, target, contrast, sentences, against)
    asked = LikeQuery(look, one.picture, target, contrast, cells, parts, about, pixels, options.because)
    like = show_like(classifier, asked, options.like, options.prototypes)
    if isinstance(like, Like):
        like = replace(like, target=classifier.classes[target])
    words = show_words(classifier, one.pooled[0], target, rival, scored)
    label = classifier.classes[target]
    outside = None if options.objects is None else show_outside(heat, one.picture, label, options.objects)
    return Explanation(
        prediction,
        one.picture.pixels,
        replace(where, neurons=neurons, outside=outside),
        like,
        words,
        agree(
            label,
            heat,
            spoken if about.regions_are_of_class else None,
            like,
            words,
            classifier.decided_by_words,
            about.decision,
            unknown=about.unknown,
        ),
        classifier.provenance(),
        show_perceived(classifier, one.picture, prediction.label),
        about,
    )


def _subject(
    classifier: Classifier,
    options: ExplainOptions,
    prediction: Prediction,
    target: int,
    contrast: int | None,
    sentences: Sentences | None,
    against: bool,
) -> Subject:
    """What was asked for, beside the decision."""
    names = () if sentences is None else sentences.classes
    return Subject(
        decision=prediction.label,
        label=classifier.classes[target],
        contrast=None if contrast is None else classifier.classes[contrast],
        asked_contrast=None if options.contrast is None else classifier.classes[classifier.index_of(options.contrast)],
        sentence=names[0] if names else None,
        contrast_sentence=names[1] if len(names) > 1 else None,
        against=against,
        unknown=prediction.decision is not None and prediction.decision.is_unknown,
    )


def runner_up(probabilities: torch.Tensor, target: int) -> int:
    """The most probable class beside the target; the target itself when it is the only one."""
    if len(probabilities) == 1:
        return target
    first, second = probabilities.topk(2).indices.tolist()
    return second if first == target else first
