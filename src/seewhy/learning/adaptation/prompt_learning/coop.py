"""CoOp (Zhou et al. 2022, arXiv 2109.01134): context vectors that all classes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....classifiers import classifiers
from ..prompt_recipe import Lesson, PromptLearning
from ..prompts import PromptTask, SharedPrompt, opened


@classifiers.register
@dataclass(frozen=True)
class CoOp(PromptLearning):
    """Vectors before every class's name are learnt of pictures, through the frozen words half.

    ``p(y = i | x) = softmax_i(scale cos(g([v_1, …, v_M, name_i]), f(x)))`` (equations 2 and 3), trained by its cross
    entropy. The classes' names stay words, so any others can be named behind the same prompt; those who do so pay: what
    is learnt of some classes may be lost on others, which the forgetting table says.

    Differences: pictures are looked at once, by their own crop (the authors draw a crop and a flip anew each epoch);
    20 epochs (theirs are 50 to 200); a learning rate of its own behind the embedded encoder; and as much is kept as
    forgets little, where theirs keeps all.

    Cost: one pass of the words half over all classes per step, forwards and backwards; nothing when predicting.

    Example:
        >>> CoOp(shots=4).parameters()["words"]
        'a photo of a'
    """

    name: ClassVar[str] = "coop"
    spelt: ClassVar[str] = "CoOp"
    paper: ClassVar[str] = "Zhou et al. 2022, arXiv:2109.01134"

    def task(self, lesson: Lesson) -> PromptTask:
        tower = opened(lesson.on)
        return PromptTask(SharedPrompt.begun(tower, self.words, self.n_tokens), lesson.names, tower.logit_scale)
