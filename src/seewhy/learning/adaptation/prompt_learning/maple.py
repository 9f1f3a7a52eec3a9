"""MaPLe (Khattak et al. 2023, arXiv 2210.03117): prompts in both towers, those of pictures made of those of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....classifiers import classifiers
from ..prompt_recipe import Lesson
from ..tower_prompts import TowerPrompt, TowerPromptLearning, Towers, TowerTask


@classifiers.register
@dataclass(frozen=True)
class MaPLe(TowerPromptLearning):
    """Vectors before every class's name and in deeper layers, and among a picture's patches by a linear map of these.

    With ``P_i`` the vectors in layer ``i`` of the words half, those in layer ``i`` of the picture tower are
    ``F_i(P_i)``, for the first ``depth`` layers (equations 4 to 8); trained by the cross entropy of CoOp. What became
    of the vectors of one layer is thrown away in the next of these, and travels on behind the last.

    Pictures are seen otherwise afterwards: the classifier has an encoder of its own, which looks at everything anew.

    Differences: single precision; vectors stand behind the class token, theirs behind the patches, which is the same;
    one epoch of a rising rate instead of one at 1e-5; the encoder's own template follows the name.

    Cost: one pass of the picture tower for every picture and epoch, forwards and backwards, and one of the words half
    over all classes per step; when predicting, as the encoder.

    Example:
        >>> MaPLe(shots=16).depth
        9
    """

    name: ClassVar[str] = "maple"
    spelt: ClassVar[str] = "MaPLe"
    paper: ClassVar[str] = "Khattak et al. 2023, arXiv:2210.03117"

    def task(self, lesson: Lesson) -> TowerTask:
        towers = Towers.of(lesson.on)
        prompt = TowerPrompt.begun(towers, self.words, self.n_tokens, self.depth, None)
        return TowerTask(towers, prompt, lesson.names)
