"""OGEN: prompt learning with generated features of unknown classes and self-distillation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, mse_loss, normalize
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ...bounds import Count, NotNegative, Positive
from ...classifiers import classifiers
from ...encoders.base import Encoder
from ...encoders.names import imagenet_classes, own_sentences, own_vectors
from ...errors import InputError
from ...training.batches import Batch, TrainingData
from ...training.loop import Training, train
from ...training.task import Task
from .kinds import kinds_of, words_of
from .prompt_recipe import Lesson, PromptLearning
from .prompts import Names, Prompt, PromptTask, SharedPrompt, begun, opened, other_names, spoken

REAL, KNOWN, UNKNOWN = 0.25, 0.25, 0.5
"""Weights of the cross entropy of real features, and of features generated for known and unknown classes (authors)."""
SAME = 0.7
"""Centred cosine above which two names may mean the same object (MiniLM: couch and sofa 0.81)."""
ADVICE = (
    "they are the nearest names in the vocabulary; if one of them is a kind of one of your classes, give other names "
    "with --new-names"
)
"""Advice on names from the vocabulary."""


class FeatureGenerator(nn.Module):
    """Feature generator: image features of a class from its name.

        G(Q, K, V) = normalise(MHA(Q, K, V) + MLP(Q))

    ``Q`` and ``K`` are text features of class names, ``V`` are image features, ``MHA`` is multi-head attention, and
    ``MLP`` a perceptron.
    """

    def __init__(self, width: int, n_heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        heads = n_heads if width % n_heads == 0 else 1
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(
        self, query: Float[Tensor, "b q d"], key: Float[Tensor, "b k d"], value: Float[Tensor, "b k d"]
    ) -> Float[Tensor, "n d"]:
        attended, _ = self.attention(query, key, value)
        return normalize(self.mlp(query) + attended, dim=-1).flatten(0, 1)


class LocalMean(nn.Module):
    """Moving average of the checkpoints of the last ``m`` epochs.

    At epoch ``t`` of ``T``, the average is computed from the oldest checkpoint to the newest:

        m = floor((1 - cos(pi t / T)) / 2 (most - least) + least)
        mean = mean + (checkpoint - mean) / max(m, 2)

    ``least`` and ``most`` are the limits of ``m``. Checkpoints are stored in half precision.
    """

    past: Tensor
    n_kept: Tensor

    def __init__(self, n_weights: int, least: int, most: int, n_epochs: int) -> None:
        super().__init__()
        self.least, self.most, self.n_epochs = least, most, n_epochs
        self.register_buffer("past", torch.zeros(most, n_weights, dtype=torch.half))
        self.register_buffer("n_kept", torch.zeros((), dtype=torch.long))

    def keep(self, weights: Float[Tensor, " n"]) -> None:
        """Store the weights of an epoch, overwriting the oldest checkpoint."""
        self.past[int(self.n_kept) % self.most] = weights.half()
        self.n_kept += 1

    @property
    def window(self) -> int:
        kept = int(self.n_kept)
        part = (1 - math.cos(math.pi * min(1.0, kept / self.n_epochs))) / 2
        return min(kept, math.floor(part * (self.most - self.least) + self.least))

    def mean(self) -> Float[Tensor, " n"]:
        kept, m, average = int(self.n_kept), self.window, torch.zeros(self.past.shape[1])
        step = 1 / max(m, 2)
        for i in range(m):  # as average.lerp_(each, step) from the oldest, without copies in full precision
            factor = (step if i else 1.0) * (1 - step) ** (m - 1 - i)
            average.add_(self.past[(kept - m + i) % self.most], alpha=factor)
        return average


class Question(NamedTuple):
    """Inputs of the generator for a batch, the same for student and teacher."""

    image: Float[Tensor, "b d"]
    labels: Int[Tensor, " b"]
    draw: Float[Tensor, "1 d"]
    near: Int[Tensor, "n k"] | None
    """Known classes near each unknown name, or unknown names near each picture; ``None`` without unknown names."""


class Answer(NamedTuple):
    """Generated or real features, the text features to compare them with, and the weight of this term of the loss."""

    features: Float[Tensor, "n d"]
    among: Float[Tensor, "c d"]
    labels: Int[Tensor, " n"]
    weight: float

    def scores(self, scale: float) -> Float[Tensor, "n c"]:
        return scale * self.features @ self.among.T


class Teacher(NamedTuple):
    """The generator and text features of an averaged earlier model."""

    epoch: int
    generator: FeatureGenerator
    text: Float[Tensor, "n d"]


def neighbours(mean: Float[Tensor, "c d"], k: int) -> Int[Tensor, "c k"]:
    """Return the ``k`` nearest other classes of each class, by the dot product of mean features."""
    near = mean @ mean.T
    return near.fill_diagonal_(-torch.inf).topk(min(k, len(mean) - 1)).indices


class GeneratorTask(Task):
    """Training of the generator before the prompt."""

    needs = ("image", "labels")
    moves = False

    def __init__(self, generator: FeatureGenerator, generated: Callable[[Batch], Tensor]) -> None:
        super().__init__()
        self.generator, self.generated = generator, generated

    def features(self, batch: Batch) -> Batch:
        return batch

    def loss(self, features: Batch, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": self.generated(features)}


class OGENTask(PromptTask):
    """Joint training of a prompt and a feature generator; see :class:`OGEN` for the loss."""

    n_done: Tensor

    def __init__(self, how: OGEN, prompt: Prompt, lesson: Lesson, scale: float, names: Names) -> None:
        """``names`` holds known classes first, then unknown classes."""
        super().__init__(prompt, names, scale)
        self.how, self.n_known = how, len(lesson.classes)
        self.generator = FeatureGenerator(lesson.image.shape[1]).requires_grad_(True)
        self.rates = (("generator.", how.generator_lr / (how.lr or lesson.lr)), ("prompt.", 1 / REAL))
        self.steps_per_epoch = lesson.steps_per_epoch
        own = [lesson.image[lesson.labels == c].detach() for c in range(len(lesson.classes))]
        self.mean = torch.stack([x.mean(0) for x in own])
        self.deviation = torch.stack([x.std(0, correction=0) for x in own])
        self.near = neighbours(self.mean, how.k)
        self.register_buffer("n_done", torch.zeros((), dtype=torch.long))
        self.past: LocalMean | None = None
        if how.distil:
            n = parameters_to_vector(self.trained()).numel()
            self.past = LocalMean(n, how.window_min, how.window_max, lesson.n_epochs)
        self._teacher: Teacher | None = None

    def trained(self) -> list[nn.Parameter]:
        return [*self.prompt.parameters(), *self.generator.parameters()]

    def generated(self, batch: Batch, text: Float[Tensor, "n d"]) -> Tensor:
        question = Question(batch["image"], batch["labels"], torch.rand(1, batch["image"].shape[1]), None)
        return self.distance(question, self.answers(question, self.generator, text))

    def loss(self, features: tuple[Tensor, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        image, text = features
        near = None if len(text) == self.n_known else self.nearest(text, batch["labels"])
        question = Question(image, batch["labels"], torch.rand(1, image.shape[1]), near)
        own = self.answers(question, self.generator, text)
        generated, distilled = self.distance(question, own), torch.zeros(())
        right = (own[0].scores(self.scale).argmax(1) == question.labels).float().mean()
        told = torch.stack([a.weight * cross_entropy(a.scores(self.scale), a.labels) for a in own]).sum()
        if (teacher := self.teacher()) is not None:
            with torch.no_grad():
                past = self.answers(question, teacher.generator, teacher.text)
            distilled = self.between(own, past)
        whole = generated + told + self.how.distil * distilled
        return {"loss": whole, "right": right, "generated": generated, "distilled": distilled}

    def drawn(self, near: Int[Tensor, "n k"], draw: Float[Tensor, "1 d"]) -> Float[Tensor, "n k d"]:
        """Return a random feature of each given class."""
        return self.mean[near] + draw * self.deviation[near]

    @torch.no_grad()
    def nearest(self, text: Float[Tensor, "n d"], labels: Int[Tensor, " b"]) -> Int[Tensor, "m k"]:
        """Return the known classes nearest to each unknown name.

        With ``extrapolation="released"``, return the unknown names nearest to the class of each picture.
        """
        text, new = text[: self.n_known], text[self.n_known :]
        if self.how.extrapolation == "joint":
            return (new @ text.T).topk(self.near.shape[1]).indices
        return (text[labels] @ new.T).topk(min(self.near.shape[1], len(new))).indices

    def answers(self, question: Question, generator: FeatureGenerator, text: Float[Tensor, "n d"]) -> list[Answer]:
        """Return real features, then generated features of the same classes, neighbour classes and unknown classes."""
        (image, labels, draw, asked), text, new = question, text[: self.n_known], text[self.n_known :]
        near, held = self.near[labels], text.detach()
        query, key, k = held[labels][:, None], held[near], near.shape[1]
        if self.how.extrapolation == "per_class":
            parts = (query.expand(-1, k, -1), key, self.drawn(near, draw))
            one, of = generator(*(t.reshape(-1, 1, image.shape[1]) for t in parts)), labels.repeat_interleave(k)
        else:
            one, of = generator(query, key, self.drawn(near, draw)), labels
        back = generator(key, query, image[:, None])
        made = [
            Answer(image, text, labels, REAL),
            Answer(one, text, of, KNOWN),
            Answer(back, text, near.flatten(), KNOWN / k),
        ]
        if asked is None:
            return made
        if self.how.extrapolation == "joint":
            unknown = generator(new[:, None], held[asked], self.drawn(asked, draw))
            return [*made, Answer(unknown, new, torch.arange(len(new)), UNKNOWN / k)]
        unknown = generator(new[asked], query, image[:, None])
        return [*made, Answer(unknown, new, asked.flatten(), UNKNOWN / asked.shape[1])]

    def distance(self, question: Question, own: Sequence[Answer]) -> Tensor:
        image, value = question.image, self.drawn(self.near[question.labels], question.draw)
        target = image.repeat_interleave(len(own[1].features) // len(image), 0)
        return image.shape[1] * (mse_loss(own[1].features, target) + mse_loss(own[2].features, value.flatten(0, 1)))

    def between(self, own: Sequence[Answer], past: Sequence[Answer]) -> Tensor:
        """Return the distillation loss between student and teacher."""
        found = []
        for a, b in zip(own, past, strict=True):
            said, now = b.scores(self.scale).log_softmax(1), a.scores(self.scale).log_softmax(1)
            found.append(a.weight * kl_div(now, said, reduction="batchmean", log_target=True))
        apart = [mse_loss(a.features, b.features) for a, b in zip(own[1:], past[1:], strict=True)]
        return torch.stack(found).sum() + own[0].features.shape[1] * torch.stack(apart).sum()

    def after_step(self) -> None:
        self.n_done += 1
        if self.past is not None and int(self.n_done) % self.steps_per_epoch == 0:
            self.past.keep(parameters_to_vector(self.trained()).detach())

    @torch.no_grad()
    def teacher(self) -> Teacher | None:
        """Return the averaged model, which is updated once per epoch."""
        if self.past is None or not (epoch := int(self.past.n_kept)):
            return None
        if self._teacher is None or self._teacher.epoch != epoch:
            generator, prompt = deepcopy(self.generator).eval(), deepcopy(self.prompt)
            vector_to_parameters(self.past.mean(), [*prompt.parameters(), *generator.parameters()])
            self._teacher = Teacher(epoch, generator, prompt.texts(self.names))
        return self._teacher


def unknown_names(on: Encoder, classes: Sequence[str], excluded: Sequence[str], n: int) -> tuple[str, ...]:
    """Return the ``n`` names nearest to the classes, out of the encoder's classes and ImageNet's.

    A name is skipped if one of these conditions is true for a class or for a name in ``excluded``:

    * The cosine of the two names' vectors, after centring, is at least :data:`SAME`.
    * The name, a WordNet synonym or its definition contains all words of the class, or the class contains a synonym.
    * According to WordNet's definitions, the name is a kind of the class or of the class's last word
      (:func:`~.kinds.kinds_of`).

    For a class that WordNet does not have, such as a brand, kinds of this class may remain.
    """
    known = {c.label: c for c in imagenet_classes()}
    vocabulary, taken = list(dict.fromkeys([*on.classes, *known])), [*classes, *excluded]
    vectors = own_sentences(on.text, [spoken(name) for name in vocabulary]).float()
    centre = vectors.mean(0)
    others = normalize(own_vectors(on.text, [spoken(name) for name in taken]).float() - centre, dim=1)
    near = normalize(vectors - centre, dim=1) @ others.T
    words, kinds = [own for name in taken if (own := words_of(name))], kinds_of(taken)

    def same(name: str) -> bool:
        found = known.get(name)
        own = [words_of(one) for one in (name, *(found.names if found else ()))]
        meant = words_of(found.gloss if found else "")
        return name in kinds or any(one <= meant or any(one <= w or w <= one for w in own if w) for one in words)

    free = [i for i, name in enumerate(vocabulary) if float(near[i].max()) < SAME and not same(name)]
    if len(free) < 2:
        raise InputError(
            f"ogen needs at least 2 names of other objects, but found {len(free)} in its vocabulary of "
            f"{len(vocabulary)} names. Give `new_names`, or set new_names=() to use none."
        )
    ranked = near[free, : len(classes)].max(1).values.argsort(descending=True, stable=True)
    return tuple(vocabulary[free[i]] for i in ranked[:n].tolist())


@classifiers.register
@dataclass(frozen=True)
class OGEN(PromptLearning):
    """Prompt learning with generated features of unknown classes.

    A generator ``G`` predicts image features from class names. CoOp's prompt is trained on real and generated features,
    so that the prompt also works for new names.

        G(Q, K, V) = normalise(MHA(Q, K, V) + MLP(Q))
        V  = mean + u std             random features of the classes N
        u1 = G(T_y, T_N, V)           class y, as if it had no pictures
        u2 = G(T_N, T_y, x)           the neighbours of y
        u3 = G(T'_j, T_N(j), V)       unknown class j

    * ``Q``, ``K``, ``V``: inputs of ``MHA``, multi-head attention; ``MLP`` is a perceptron.
    * ``u1``, ``u2``, ``u3``: generated features.
    * ``T``, ``T'``: text features of the known and the unknown names, with the prompt.
    * ``x``: image feature of class ``y``.
    * ``N``: the ``k`` known classes whose mean features are nearest; ``mean`` and ``std`` are those of their features.
    * ``u``: random numbers from 0 to 1.

    The generator is trained alone first, with the loss ``L``. Then generator and prompt are trained together, with the
    loss ``L'``:

        L  = d MSE(u1, x) + d MSE(u2, V)
        L' = L + CE(u1, y)/4 + CE(u2, N)/(4k) + CE(u3, j)/(2k) + CE(x, y)/4

    * ``d``: width of the encoder's vectors.
    * ``MSE``, ``CE``: mean squared error, and cross entropy.

    A teacher with the averaged weights of past epochs adds a loss of weight ``distil``. This loss is ``KL(teacher ||
    student)`` for real and generated features, plus ``d MSE`` between the generated features of teacher and student.

    ``G``, ``u1`` and ``u2`` follow the authors' code, which also divides by ``k`` a term that is already a mean. Where
    SeeWhy differs from the code:

    * ``u3`` uses all nearest known classes together, as in the paper. With ``extrapolation="released"``, ``u3 = G(T'_M,
      T_y, x)`` as in the code, where ``M`` are the unknown names nearest to the class of the picture.
    * The number of epochs that the teacher averages increases as a cosine, as in the paper. The limits of this number
      and the decay could not be checked, because only abstract, captions and reviews of the paper were available.
    * Unknown names come from a vocabulary (:func:`unknown_names`). The authors use the names of the test classes.
    * The prompt's learning rate is 4 times that of CoOp, because the loss of real pictures has the weight 1/4.
    * The generator has a separate number of steps and a higher learning rate.

    Training takes as long as for CoOp, plus the passes of the generator and of the text encoder on the unknown names.
    The teacher needs memory for a second generator and ``window_max`` copies of the weights in half precision.
    Prediction takes as long as for CoOp.

    Args:
        new_names: names of classes without pictures; default: names from the vocabulary, as many as there are classes.
            An empty list removes the terms with ``u3``.
        excluded: names that must not be chosen from the vocabulary.
        k: number of nearest classes (authors: 3).
        extrapolation: form of ``u3``: ``"joint"``, ``"per_class"`` or ``"released"``.
        distil: weight of the teacher's loss, at least 0; with 0 there is no teacher.
        window_min: number of epochs that the teacher averages at the start (paper: 2).
        window_max: number of epochs that the teacher averages at the end (paper: 9).
        generator_steps: number of steps in which only the generator is trained (authors: a fifth of the epochs).
        generator_lr: learning rate of the generator (authors: 0.002, with many more steps).
    """

    name: ClassVar[str] = "ogen"
    spelt: ClassVar[str] = "OGEN"
    paper: ClassVar[str] = "Zang et al. 2024, arXiv:2401.15914"
    small: ClassVar[Mapping[str, Any]] = {**PromptLearning.small, "generator_steps": 2}

    new_names: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    k: Count = 3
    extrapolation: Literal["joint", "per_class", "released"] = "joint"
    distil: NotNegative = 1.0
    window_min: Count = 2
    window_max: Count = 9
    generator_steps: Count = 100
    generator_lr: Positive = 0.1

    def check(self) -> None:
        if self.window_min > self.window_max:
            raise InputError(
                f"`window_max` must be at least `window_min`, got window_min={self.window_min} and "
                f"window_max={self.window_max}."
            )

    def task(self, lesson: Lesson) -> PromptTask:
        tower = opened(lesson.on)
        if self.new_names is None:
            names = unknown_names(lesson.on, lesson.classes, self.excluded, len(lesson.classes))
        else:
            names = other_names(self.new_names, lesson.classes)
        prompt = SharedPrompt(begun(tower, self.words, self.n_tokens))
        every = Names(tower, (*lesson.classes, *names)) if names else lesson.names
        task = OGENTask(self, prompt, lesson, tower.logit_scale, every)
        self._learn_generator(task, lesson)
        task.facts = {"unknown_names": list(names)}
        task.advice = ADVICE if self.new_names is None else ""
        return task

    def _learn_generator(self, task: OGENTask, lesson: Lesson) -> None:
        """Train the generator with the initial prompt; a resumed run repeats this step."""
        with torch.no_grad():
            text = task.prompt.texts(task.names)
        alone = GeneratorTask(task.generator, lambda batch: task.generated(batch, text))
        data = TrainingData(len(lesson.image), {"image": lesson.image, "labels": lesson.labels})
        sgd: dict[str, Any] = {"optimiser": "sgd", "nesterov": False, "schedule": "cosine", "seed": self.seed}
        train(alone, data, Training(self.generator_steps, self.batch_size, lr=self.generator_lr, **sgd))
        task.train().requires_grad_(True)
        if task.past is not None:
            task.past.keep(parameters_to_vector(task.trained()).detach())
