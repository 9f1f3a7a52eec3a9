"""OGEN (Zang et al. 2024, arXiv 2401.15914): prompts that also learn from features made for unseen classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from ....classifiers import classifiers
from ....errors import InputError
from ..prompt_recipe import Lesson, PromptLearning
from ..prompts import Names, PromptTask, SharedPrompt, opened
from .generator import FeatureGenerator
from .task import Extrapolation, OGENTask


@classifiers.register
@dataclass(frozen=True)
class OGEN(PromptLearning):
    """CoOp's prompt, kept from its classes alone by a generator of features, and by its own past.

    ``G(Q, K, V) = normalise(MHA(Q, K, V) + MLP(Q))`` makes a picture's features of a name, from names and features of
    near classes. With ``T`` the names behind the prompt, ``x`` a picture of class ``y``, ``N`` the ``k`` classes whose
    mean features are nearest, and ``V = mean + u std`` drawn of these: ``u1 = G(T_y, T_N, V)`` as if ``y`` had none,
    ``u2 = G(T_N, T_y, x)`` the other way round, ``u3 = G(T'_M, T_y, x)`` for the nearest names ``M`` without pictures.
    For the first ``warm`` part of the epochs ``L = d MSE(u1, x) + d MSE(u2, V)``; then also
    ``CE(u1, y)/4 + CE(u2, N)/(4k) + CE(u3, M)/(2k) + CE(x, y)/4``, as the authors' code has it; that code divides by
    ``k`` what is a mean already, and draws ``u`` from [0, 1), which is not around 0. Both are kept.

    No name of a class without pictures is read unless ``new_names`` gives some, and then ``u3`` alone uses them. The
    authors' code gives the very names that are judged on; names of anything else may be given.

    The teacher is not in the authors' code. After the paper: ``KL(teacher || student)`` on each batch, the teacher a
    running average of the prompt over the last ``m_t`` epochs, ``m_t`` widening as a cosine from ``window_min`` to
    ``window_max``; its weight and the form of its loss are ours. ``distil=0`` leaves it out. Per-class extrapolation,
    ``u1`` of each near class alone, is the paper's other form, and not in the code either.

    Other differences: ``d`` is the encoder's width (512 there), everything is in single precision, and those of CoOp.

    Cost: CoOp's and the generator, and one pass more of the words half over ``new_names``; nothing when predicting.

    Args:
        words: that the prompt begins with; empty, ``n_tokens`` random vectors.
        n_tokens: of a prompt that begins without words.
        shots: pictures of each class to train on; left out, all that are not held out.
        keep: how much is kept, 0 to 1; left out, chosen on half of the held-out pictures.
        may_forget: most of the agreement with the encoder's own classes that a chosen ``keep`` costs.
        epochs: times that each picture is seen (authors: 10, 50 and 200).
        batch_size: pictures per step (authors: 32).
        lr: of SGD with momentum 0.9, at its highest; left out, as for CoOp.
        weight_decay: of all that is trained (authors: 5e-4).
        held_out: part of the pictures that is never trained on.
        split: "grouped" keeps pictures of the same thing on one side; "random" does not, and flatters.
        n_bank: pictures whose patches are kept as evidence.
        seed: of split, pictures drawn, weights and order.
        new_names: of classes without pictures, to learn for; none unless given.
        k: near classes (authors: 3).
        extrapolation: ``"joint"``, from all near classes at once, or ``"per_class"``.
        warm: part of the epochs in which the generator alone learns (authors: 0.2).
        distil: weight of the teacher's word.
        window_min: epochs that the teacher is made of at first (paper, from memory: 2),
        window_max: and in the end (9).
        generator_lr: the generator's learning rate (authors: 0.002, as the prompt's).
    """

    name: ClassVar[str] = "ogen"
    spelt: ClassVar[str] = "OGEN"
    paper: ClassVar[str] = "Zang et al. 2024, arXiv:2401.15914"

    new_names: tuple[str, ...] = ()
    k: int = 3
    extrapolation: Extrapolation = "joint"
    warm: float = 0.2
    distil: float = 1.0
    window_min: int = 2
    window_max: int = 9
    generator_lr: float = 2e-3

    def check(self) -> None:
        if self.extrapolation not in get_args(Extrapolation):
            raise InputError(
                f"ogen was given extrapolation={self.extrapolation!r}. 'joint' or 'per_class' was expected. Change it."
            )
        if self.k < 1 or not 0 <= self.warm < 1 or self.distil < 0 or not 1 <= self.window_min <= self.window_max:
            raise InputError(
                f"ogen was given k={self.k}, warm={self.warm:g}, distil={self.distil:g}, window_min={self.window_min}, "
                f"window_max={self.window_max}. A near class or more, a part below 1, a weight from 0, and a window "
                "that does not shrink were expected. Change them."
            )

    def task(self, lesson: Lesson) -> PromptTask:
        tower = opened(lesson.on)
        same = [name for name in self.new_names if name in lesson.classes]
        if same:
            raise InputError(
                f"The new name {same[0]!r} is one of the {len(lesson.classes)} classes with pictures. Names of other "
                "classes were expected. Drop it."
            )
        prompt = SharedPrompt.begun(tower, self.words, self.n_tokens)
        return OGENTask(
            prompt,
            lesson,
            tower.logit_scale,
            FeatureGenerator(lesson.image.shape[1]),
            Names(tower, self.new_names) if self.new_names else None,
            self.k,
            self.extrapolation,
            self.warm,
            self.distil,
            (self.window_min, self.window_max),
            self.generator_lr / (self.lr or lesson.lr),
        )
