"""Explain a picture by several kinds of evidence, and measure their agreement."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..attributions import Attribution, attributions
from ..classifiers.certainty import check_level
from ..classifiers.network import Perceiver, Perception
from ..encoders.stream import Encoded, EncodeRequest, encode_stream
from ..errors import ImageError, InputError
from ..explanation.base import AGREE, IN_PART, TOO_LITTLE, Agreement, Explanation, Where, Words
from ..explanation.kinds import Memorised, Outside, Perceived
from ..explanation.similar import Like
from ..explanation.verdict import Level, Missing, Verdict
from ..metrics.base import upsampled
from ..metrics.localisation import positive_share
from ..metrics.similarity import spearman
from ..parameters import configured
from ..pictures.images import Picture
from ..pictures.object_masks import MaskSource
from ..pictures.samples import Sample
from ..printable import percent
from ..storage.features import FeatureStore
from ..threads import each_beside
from ..trust.base import LEVEL
from ..types import Failure
from .case import Case, Question, cases, runner_up
from .faithfulness import RULE, judge, measure
from .like import show_like
from .words import show_words

if TYPE_CHECKING:
    from ..classifiers.base import Classifier
    from ..encoders.base import Encoder

__all__ = ["ExplainOptions", "explain_all", "explain_seen", "reads_layer", "runner_up"]

STILL = 1 / 255
"""Mean change in the last iteration below which a reconstructed picture is stable: one grey level."""
ALIKE = 0.05
"""Distance from their mean below which reconstructed copies count as the same picture."""
RULE_OF_PERCEIVED = (
    "The redrawn picture is believable under two conditions. It must be stable: the last loop changes it by less than "
    f"one of 255 grey levels, and all copies end within {ALIKE} of their mean. The nearest memorised picture must have "
    "the predicted class. If only one condition holds, it is partly believable. Otherwise do not rely on it."
)
LEVELS: tuple[Level, ...] = ("do not rely", "partly", "believable")
LOOPS = (0, 1, 2, 3, 5, 8, 13, 21)
"""Number of iterations that are shown besides the last."""
NEAR = 0.09
"""Distance from a limit below which a shift of the picture by one pixel may change the verdict."""
UNKNOWN = "The picture is unlike all training pictures, so agreement was not measured."
FAR = "Even the nearest patches look different, so agreement was not measured."


@dataclass(frozen=True)
class ExplainOptions:
    """Options of an explanation.

    Attributes:
        where: attribution method, as a name or an object (:mod:`seewhy.compat` makes objects from other libraries);
            default: the method of the classifier, otherwise Grad-CAM.
        layer: dotted name of the encoder's layer that the map is computed from; default: the last layer. Earlier layers
            give finer maps.
        target: class to explain, by name or index; default: the predicted class.
        contrast: class to explain the target against, by name or index; default: none.
        target_text: sentence to explain instead of a class.
        contrast_text: sentence to explain ``target_text`` against; default: none.
        settings: settings of the attribution method, for example ``{"n_masks": 2000}``.
        like: method that finds similar patches; default: EPIC if the classifier has EPIC prototypes, otherwise the
            method of the classifier.
        prototypes: folder of prototypes; default: those of the classifier.
        because: strength of the changes by which to measure which property (hue, texture, …) makes patches similar:
            ``"calibrated"`` or ``"paper"``. Default: not measured.
        neurons: number of channels to list on each side: those that raise the target's score most, and those that
            lower it most; 0 lists none.
        measure: whether to measure the faithfulness of the map. If ``False``, an explanation takes less time and has no
            verdict on the map.
        n_regions: number of regions to mark with letters.
        top: number of classes to list.
        level: required probability, 0.5 to 1, that the predicted set of classes contains the true class; a higher level
            gives larger sets.
        typical: folder of a generator, to show typical pictures of the class; default: none are generated.
        judge: second network that classifies the generated pictures: a classifier, or an image-text encoder; default:
            none.
        seed: seed of the shuffled maps and of the order of equal values.
        objects: source of object masks, to measure the share of the heat outside the object; default: not measured.
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
    typical: Any = None
    judge: Classifier | Encoder | None = None
    objects: MaskSource | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_level(self.level)
        object.__setattr__(self, "settings", tuple(sorted(dict(self.settings).items())))
        if self.objects is not None and not callable(getattr(self.objects, "mask", None)):
            raise InputError(
                "`objects` must be a source of masks, such as seewhy.pictures.object_masks.MaskFiles, got "
                f"{self.objects!r}."
            )
        if self.judge is not None and self.typical is None:
            raise InputError(
                "`judge` needs a generator of typical pictures. Add --typical FOLDER (typical=FOLDER in Python), or "
                "leave the judge out."
            )

    def opened(self, classifier: Classifier) -> ExplainOptions:
        """Return the same options with the generator loaded."""
        if not isinstance(self.typical, str | Path):
            return self
        from ..classifiers.base import Classifier
        from ..encoders.base import Encoder

        if self.judge is not None and not isinstance(self.judge, Classifier | Encoder):
            raise InputError(
                f"`judge` must be a classifier or an image-text encoder, got {type(self.judge).__name__!r}. Load one "
                "with seewhy.load or seewhy.encoder."
            )
        (made,) = entry_points(group="seewhy.evidence", name="typical")
        return replace(self, typical=made.load().open(self.typical, classifier, self.judge), judge=None)

    def method(self, own: str = "grad_cam") -> Attribution:
        """Return the configured attribution method; ``own`` is the name used by default."""
        given = dict(self.settings)
        if isinstance(self.where, Attribution):
            if self.layer is not None:
                raise InputError("`layer` cannot be combined with an attribution object. Set the layer in that object.")
            return configured(self.where, given)
        name = own if self.where is None else self.where
        found: Any = attributions[name]
        if self.layer is None:
            return configured(found, given)
        if "layer" in given:
            raise InputError(
                f"`layer` must be given once, got layer={self.layer!r} and a setting of the same name. Drop one."
            )
        if not reads_layer(found):
            able = ", ".join(name for name in attributions if reads_layer(attributions[name]))
            raise InputError(f"{name} has no layer to choose, got layer={self.layer!r}. Methods that have: {able}.")
        return configured(found, {**given, "layer": self.layer})

    def label(self, method: Attribution) -> str:
        place = "" if self.layer is None else f" at {self.layer}"
        settings = ", ".join(f"{name}={value}" for name, value in dict(self.settings).items())
        return f"{method.name}{place}{f' with {settings}' if settings else ''}"


def reads_layer(method: type[Attribution]) -> bool:
    return "layer" in {f.name for f in fields(method)}  # type: ignore[arg-type]


def show_where(case: Case) -> Where:
    """Return the map with its regions and, if measured, its faithfulness."""
    watched, heat, objects = case.watched, case.heat, case.options.objects
    found = partial(
        Where,
        case.options.label(case.question.method),
        watched.name_of(watched.target),
        None if watched.contrast is None else watched.name_of(watched.contrast),
        heat.numpy(),
        case.regions,
        neurons=case.neurons,
        outside=None if objects is None else show_outside(heat, case.picture, case.label, objects),
    )
    if not bool((heat > 0).any()):
        nothing = f"No part of this picture is evidence for {watched.name_of(watched.target)}, so the map is empty."
        return found(Verdict("do not rely", nothing, RULE))
    if case.pixels is None:
        return found(Verdict("not measured", "The effect of hiding these places was not measured.", RULE))
    rival = None if watched.rival is None else partial(case.heat_of, watched.rival)
    measured = measure(watched, heat, case.pixels, case.options.seed, rival)
    areas: dict[str, Any] = {"steps": tuple(measured.deleted[0].parts["steps"])}
    for key, pair in (("deletion", measured.deleted), ("insertion", measured.inserted)):
        for name, score in zip((key, f"{key}_random"), pair, strict=True):
            areas |= {name: round(score.value, 4), f"{name}_curve": tuple(score.parts["values"])}
    has_rival = measured.lead is not None and watched.rival is not None
    return found(
        judge(measured, watched),
        **areas,
        match=round(measured.match.value, 4),
        match_centre=round(measured.match.centre, 4),
        rival=watched.name_of(watched.rival) if has_rival and watched.rival is not None else None,
        match_lead=None if measured.lead is None else round(measured.lead, 4),
    )


def show_outside(heat: Float[Tensor, "h w"], picture: Picture, label: str, masks: MaskSource) -> Outside:
    """Return the share of the positive heat outside the object."""
    if not bool((heat > 0).any()):
        return Outside(masks.told, why="there is no heat")
    try:
        mask = masks.mask(Sample(picture.name, label), picture)
    except ImageError as error:
        is_verb = error.reason.partition(" ")[0] in ("has", "is")
        return Outside(masks.told, why=f"the picture {error.reason}" if is_verb else error.reason)
    full = upsampled(heat[None], (mask.shape[0], mask.shape[1]))
    return Outside(masks.told, float(positive_share(full, ~mask)[0]), float((~mask).float().mean()))


def show_perceived(case: Case) -> Perceived | None:
    network, classifier = case.classifier.network, case.classifier
    if network is None or not isinstance(network, Perceiver):
        return None
    found = network.perceived(classifier.encoder.pixels([case.picture.pixels])[0])
    if found is None:
        return None
    n = len(found.moves)
    loops = (*(loop for loop in LOOPS if loop < n), n)
    label = classifier.classes[found.label]
    return Perceived(
        tuple(_grey(found.path[loop]) for loop in loops),
        loops,
        found.moves[-1],
        found.spread,
        found.n_copies,
        Memorised(found.name, label, found.distance, _grey(found.nearest)),
        _judge_perceived(found, label, case.prediction.label),
    )


def _grey(picture: Float[Tensor, "h w"]) -> np.ndarray:
    """Convert to uint8; NaN becomes middle grey."""
    values: np.ndarray = np.nan_to_num(picture.numpy() * 255, nan=127.5, posinf=255, neginf=0)
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def _judge_perceived(found: Perception, label: str, decided: str) -> Verdict:
    settled, one = found.moves[-1] < STILL, found.spread < ALIKE
    figures = f"The last of {len(found.moves)} loops changed it by {255 * found.moves[-1]:.1f} of 255 grey levels."
    if found.n_copies > 1:
        alike = "" if one else ", so it is a blend that no copy shows"
        figures += f" The {found.n_copies} copies end at a distance of {found.spread:.3f} from their mean{alike}."
    figures += f" Its distance from the nearest memorised picture, which shows {label}, is {found.distance:.3f}."
    said = "is stable" if settled and one else "is a blend of copies" if settled else "was still changing"
    other = "" if label == decided else f", not {decided}"
    figures = f"The redrawn picture {said}. {figures}"
    if found.distance < ALIKE:
        said = f"is not yours but a training picture of {label}{other}"
    else:
        said += f", and the nearest memorised picture shows {label}{other}"
    said = f"The redrawn picture {said}."
    return Verdict(LEVELS[int(settled and one) + int(label == decided)], said, RULE_OF_PERCEIVED, figures)


def explain_all(
    classifier: Classifier,
    sources: Iterable[Any],
    options: ExplainOptions,
    *,
    store: FeatureStore | None = None,
    batch_size: int = 16,
) -> Iterator[Explanation | Failure]:
    options = options.opened(classifier)
    question = Question.of(classifier, options)
    request = EncodeRequest(features=lambda _index: True, pictures=True)
    stream = encode_stream(classifier.encoder, sources, store=store, request=request, batch_size=batch_size)
    while batch := list(itertools.islice(stream, batch_size)):
        good = [s for s in batch if isinstance(s, Encoded)]
        made = _answers(question, good) if good else iter(())
        for one in batch:
            yield one if isinstance(one, Failure) else next(made)


def explain_seen(classifier: Classifier, seen: Sequence[Encoded], options: ExplainOptions) -> Iterator[Explanation]:
    """Explain encoded pictures, which must have feature maps and pixels."""
    options = options.opened(classifier)
    return _answers(Question.of(classifier, options), seen)


def _answers(question: Question, encoded: Sequence[Encoded]) -> Iterator[Explanation]:
    def made() -> Generator[Explanation, None, None]:
        classifier, generator = question.classifier, question.options.typical
        model, by_words = classifier.provenance(), classifier.decided_by_words
        for case in cases(question, encoded):
            about, label, shown, seen = case.subject, case.label, case.picture, show_perceived(case)
            where, like = show_where(case), show_like(case)
            words = show_words(classifier, case.pooled, case.target, case.other, case.scores)
            spoken = case.spoken if about.regions_are_of_class else None
            agreed = agree(label, case.heat, spoken, like, words, by_words, about.decision, unknown=about.unknown)
            typical = None if generator is None else generator.of(case.target)
            evidence = (where, like, words, agreed, model, seen, about, typical)
            yield Explanation(case.prediction, shown.pixels, *evidence, in_view=shown.in_view)

    return each_beside(question.classifier.encoder.engine.name, made())


def rank_correlation(a: Float[Tensor, "h w"], b: Float[Tensor, "gh gw"]) -> float | None:
    """Return Spearman's correlation of two maps on the coarser grid; ``None`` if a map is constant."""
    size = (min(a.shape[0], b.shape[0]), min(a.shape[1], b.shape[1]))
    one, other = ((m if m.shape == size else adaptive_avg_pool2d(m[None], size)[0]).flatten() for m in (a, b))
    if (one == one[0]).all() or (other == other[0]).all():
        return None
    return float(spearman(one[None], other[None]).clamp(-1, 1))


def agree(
    label: str,
    heat: Float[Tensor, "h w"],
    words_map: Float[Tensor, "gh gw"] | None,
    like: Like | Missing,
    words: Words | Missing,
    decided_by_words: bool,
    decision: str | None = None,
    *,
    unknown: bool = False,
) -> Agreement:
    """Measure how well the other evidence agrees with the explained class, from 0 to 1.

    The agreement is the mean of up to three values: the share of neighbours that have the class, whether the
    descriptions choose the class, and the correlation of the descriptions' map with the heat map. Evidence that decided
    the prediction is left out. So are neighbours with a low similarity.
    """
    if unknown:
        return Agreement(None, {}, UNKNOWN)
    parts: dict[str, float] = {}
    said: list[str] = []
    far = isinstance(like, Like) and like.of_target is not None and like.of_target.far
    if isinstance(like, Like) and like.neighbours and like.of_class and not like.display.votes and not far:
        parts["neighbours"] = share = sum(n.label == label for n in like.neighbours) / len(like.neighbours)
        said.append(f"{percent(share, ' ')} of the similar parts are {label}")
    if isinstance(words, Words) and not decided_by_words:
        same = words.decision == label
        parts["words"] = float(same)
        if words_map is not None and (along := rank_correlation(heat, words_map)) is not None:
            parts["place"] = max(0.0, along)
        said.append(f"the descriptions choose {words.decision}{_for_places(parts.get('place'))}")
    if not parts:
        return Agreement(None, {}, FAR if far else TOO_LITTLE)
    score = sum(parts.values()) / len(parts)
    verdict = "agrees" if score >= AGREE else "agrees only in part" if score >= IN_PART else "disagrees"
    near = next((limit for limit in (AGREE, IN_PART) if abs(score - limit) < NEAR), None)
    notes = ["The nearest patches look too different and were not counted."] if far else []
    if near is not None:
        notes.append(
            f"The agreement is close to the limit of {percent(near, ' ')}, so moving the picture by one pixel may "
            "change the verdict."
        )
    is_decision = decision in (None, label)
    who = "The evidence" if is_decision else f"For {label}, which is not the decision, the evidence"
    sentence = f"{who} {verdict}: {', and '.join(said)}."
    return Agreement(round(score, 4), parts, sentence, None if is_decision else label, " ".join(notes))


def _for_places(overlap: float | None) -> str:
    if overlap is None:
        return ""
    if overlap >= AGREE:
        return " and fit the same places"
    return " and fit partly the same places" if overlap >= IN_PART else ", but fit other places"
