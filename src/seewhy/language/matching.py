"""Choose texts for pictures among the texts of their class (GIST), and read and write captions."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..bounds import Checked, Count, Positive
from ..descriptions.base import Caption, Descriptions
from ..encoders.base import Encoder
from ..encoders.stream import Encoded, encode_stream, encode_texts
from ..errors import DataError
from ..pictures.samples import Sample, Samples
from ..storage.features import FeatureStore
from ..storage.output import check_file, write
from ..storage.reading import json_value, read_text, readable
from ..types import Failure
from .writers import Prompt, WriterSession

FORM = '{"image": "a.jpg", "digest": "…", "texts": ["…", …]}'


def read_captions(path: str | Path) -> tuple[Caption, ...]:
    """Read captions from a ``.jsonl`` file; ``text`` may replace ``texts``."""
    with readable(path, f"It must have one object per line: {FORM}."):
        lines = read_text(path).split("\n")
    found = tuple(_caption(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip())
    if not found:
        raise DataError(f"{path} must have at least one line: {FORM}.")
    return found


def _caption(line: str, where: str) -> Caption:
    try:
        row = json_value(line)
    except ValueError as error:
        said = getattr(error, "msg", str(error))
        raise DataError(f"{where}, must be a JSON object: {said}. For example: {FORM}.") from error
    texts = row.get("texts", row.get("text")) if isinstance(row, dict) else None
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise DataError(f"{where}, must have a list of texts: {FORM}. Write some, or delete the line.")
    if not (row.get("digest") or row.get("image")):
        raise DataError(f"{where}, must have a digest or an image: {FORM}.")
    scores = row.get("scores", [])
    if not isinstance(scores, list) or not all(type(s) in (int, float) and math.isfinite(s) for s in scores):
        raise DataError(f"{where}, must have a list of finite numbers as scores.")
    if scores and len(scores) != len(texts):
        raise DataError(f"{where}, must have one score per text, got {len(scores)} scores for {len(texts)} texts.")
    label = row.get("label")
    if not isinstance(label, str | None):
        raise DataError(f"{where}, must have the name of a class as label, got {label!r:.80}.")
    names = {name: str(row.get(name) or "") for name in ("image", "digest", "model", "prompt")}
    return Caption(texts=tuple(t.strip() for t in texts), label=label, scores=tuple(map(float, scores)), **names)


def of_pictures(captions: Sequence[Caption], digests: Sequence[str], names: Sequence[str]) -> tuple[Caption, ...]:
    """Return the captions of pictures in order, matched by digest or by unique file name."""
    by_digest = _index((c for c in captions if c.digest), lambda c: c.digest)
    by_name = _index((c for c in captions if not c.digest), lambda c: Path(c.image).name)
    files = Counter(Path(name).name for name in names)
    found, missing = [], []
    for digest, name in zip(digests, names, strict=True):
        caption = by_digest.get(digest)
        if caption is None and (caption := by_name.get(Path(name).name)) is not None and files[Path(name).name] > 1:
            raise DataError(
                f"{files[Path(name).name]} pictures are called {Path(name).name}, so their texts need a digest. "
                'Write "digest", the SHA-256 of the file, into each line.'
            )
        missing += [name] if caption is None else []
        found += [] if caption is None else [caption]
    if missing:
        first = captions[0].image or captions[0].digest
        raise DataError(
            f"{len(missing)} of {len(names)} pictures have no text, for example {missing[0]!r}. Texts are matched by "
            f"the file's digest or name; the first text is for {first!r}. Write the missing texts, or remove these "
            "pictures."
        )
    return tuple(found)


def _index(captions: Iterable[Caption], key: Callable[[Caption], str]) -> Mapping[str, Caption]:
    found: dict[str, Caption] = {}
    for caption in captions:
        known = found.setdefault(key(caption), caption)
        if known.texts != caption.texts:
            raise DataError(
                f"{caption.image or caption.digest!r} has two lines with different texts. Put its texts into one list."
            )
    return found


@dataclass(frozen=True)
class Match(Checked):
    """Settings for choosing texts; the defaults are the authors'.

    Attributes:
        top: largest number of texts per picture.
        scale: factor on the cosine similarities before the softmax over the texts of the class.
    """

    noun = "Matching"

    top: Count = 5
    scale: Positive = 100.0

    def of(self, joint: Float[Tensor, " d"], vectors: Float[Tensor, "n d"]) -> tuple[list[int], list[float]]:
        """Return the indices and probabilities of the best texts in descending order."""
        fit = (self.scale * vectors @ joint).softmax(0)
        values, order = fit.sort(descending=True, stable=True)
        return order[: self.top].tolist(), values[: self.top].tolist()


class Matcher:
    """A matcher that finds the best texts of a class for a picture."""

    def __init__(
        self, encoder: Encoder, descriptions: Descriptions, how: Match, store: FeatureStore | None = None
    ) -> None:
        self.encoder = encoder
        self.texts = descriptions.texts
        self.how = how
        flat = [text for texts in self.texts.values() for text in texts]
        parts = encode_texts(encoder, flat, store).split([len(texts) for texts in self.texts.values()])
        self.vectors = dict(zip(self.texts, parts, strict=True))

    def match(self, sample: Sample, seen: Encoded) -> Caption:
        """Return the best texts of a picture."""
        with torch.no_grad():
            joint = normalize(self.encoder.text.project(seen.pooled[:1]), dim=1)[0]
        order, scores = self.how.of(joint, self.vectors[sample.label])
        texts = tuple(self.texts[sample.label][i] for i in order)
        return Caption(str(sample.image), seen.digest, texts, sample.label, tuple(scores), self.encoder.name)


def match_pictures(
    encoder: Encoder,
    samples: Samples,
    descriptions: Descriptions,
    how: Match | None = None,
    *,
    store: FeatureStore | None = None,
) -> Iterator[Caption | Failure]:
    """Yield the best texts of each picture, in order; an unreadable picture yields a failure."""
    matcher = Matcher(encoder, descriptions.limited_to(samples.classes), how or Match(), store)
    for sample, seen in zip(
        samples.items, encode_stream(encoder, [s.source for s in samples.items], store=store), strict=True
    ):
        yield seen if isinstance(seen, Failure) else matcher.match(sample, seen)


def short_prompt(text: str) -> Prompt:
    """Return the prompt that shortens a text to its traits (GIST, step 3; the authors' wording is not public)."""
    system = (
        "You shorten a description of what a thing looks like to a comma-separated list of its visible traits, at most "
        "20 words. You add nothing, name nothing that is not in the text, and answer with the list alone."
    )
    return Prompt(text, system, max_tokens=60)


def read_short(answer: str) -> str:
    r"""Read a list of traits as one line.

    >>> read_short(" red beak,\\n black cap. ")
    'red beak, black cap'
    """
    text = " ".join(answer.split()).strip(" .\"'")
    if not 1 <= len(text.split()) <= 60:
        raise ValueError(f"it must have 1 to 60 words, got {len(text.split())}")
    return text


def shortened(caption: Caption, desk: WriterSession) -> Caption:
    texts = tuple(desk.ask(short_prompt(text), read_short) for text in caption.texts)
    return replace(caption, texts=texts, model=f"{caption.model}, shortened by {desk.writer.model}")


def specificity(captions: Iterable[Caption]) -> dict[str, float]:
    """Compute how much the best texts differ between pictures of the same class."""
    best: dict[str | None, Counter[str]] = defaultdict(Counter)
    for caption in captions:
        best[caption.label][caption.texts[0]] += 1
    if not best:
        raise DataError("No picture has a text. Run seewhy describe match first.")
    shares = [[n / sum(counts.values()) for n in counts.values()] for counts in best.values()]
    found = {
        "distinct": sum(map(len, shares)) / len(shares),
        "commonest": sum(map(max, shares)) / len(shares),
        "entropy": sum(-sum(p * math.log2(p) for p in part) for part in shares) / len(shares),
    }
    rounded = {name: round(value, 4) for name, value in found.items()}
    return {**rounded, "n_pictures": sum(sum(c.values()) for c in best.values()), "n_classes": len(best)}


def say(found: Mapping[str, float]) -> str:
    """Describe the result of :func:`specificity` in a sentence."""
    return (
        f"{found['distinct']:.1f} different best texts per class; the commonest is best for "
        f"{100 * found['commonest']:.0f} % "
        f"of a class's pictures; entropy {found['entropy']:.1f} bits (0 if one text is best for the whole class)"
    )


def match_to_file(
    path: Path,
    encoder: Encoder,
    samples: Samples,
    descriptions: Descriptions,
    how: Match | None = None,
    *,
    desk: WriterSession | None = None,
    store: FeatureStore | None = None,
    force: bool = False,
) -> Iterator[Caption | Failure]:
    """Yield the texts of :func:`match_pictures` and finally write them to a file."""
    check_file(path, force=force)
    lines = []
    for found in match_pictures(encoder, samples, descriptions, how, store=store):
        if isinstance(found, Caption):
            found = found if desk is None else shortened(found, desk)
            lines.append(json.dumps(found.to_json(), ensure_ascii=False) + "\n")
        yield found
    write(path, "".join(lines), force=force)
