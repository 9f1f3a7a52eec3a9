"""What an explanation is about: the decision, or what the user asked for in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Subject:
    """Named in every statement of a card, so that none of them can be taken for one about something else.

    Attributes:
        decision: the class decided for.
        label: the class whose likenesses and words are shown.
        contrast: the class it is explained against, if one was asked for.
        asked_contrast: the one that was asked for; another than ``contrast`` where that is the decision itself.
        sentence: in quotation marks, what the map speaks for in place of a class.
        contrast_sentence: in quotation marks, the one it speaks against.
        against: whether the map shows what speaks against all this.
        unknown: whether the decision calls the picture unlike anything the classifier knows.

    Example:
        >>> Subject("cat", "dog").said
        'The evidence is about dog, as asked; the decision is cat.'
        >>> Subject("cat", "cat").said
        ''
    """

    decision: str
    label: str
    contrast: str | None = None
    asked_contrast: str | None = None
    sentence: str | None = None
    contrast_sentence: str | None = None
    against: bool = False
    unknown: bool = False

    @property
    def is_decision(self) -> bool:
        """Whether everything is about the decision and nothing else was asked for."""
        return self.label == self.decision and not (self.contrast or self.sentence or self.against)

    @property
    def of_class(self) -> str:
        """What likenesses and channels that start from a class speak for."""
        return self.label if self.contrast is None else f"{self.label} rather than {self.contrast}"

    @property
    def of_goal(self) -> str:
        """What was explained, whether the map shows what speaks for it or against it."""
        if self.sentence is None:
            return self.of_class
        return (
            self.sentence if self.contrast_sentence is None else f"{self.sentence} rather than {self.contrast_sentence}"
        )

    @property
    def of_regions(self) -> str:
        """What the map and its lettered regions speak for."""
        return f"anything but {self.of_goal}" if self.against else self.of_goal

    @property
    def regions_are_of_class(self) -> bool:
        """Whether the lettered regions speak for the class, so that patches like them should be of it."""
        return self.sentence is None and not self.against

    @property
    def said(self) -> str:
        """One line for the card; empty where everything is about the decision."""
        if self.is_decision:
            return ""
        decided = f"the decision is {self.decision}"
        if self.sentence is not None:
            rest = f"likenesses and words are about the decision, {self.decision}."
            return f"The map is about {'what speaks against ' * self.against}{self.of_goal}, as asked; {rest}"
        if self.asked_contrast is not None and self.asked_contrast != self.contrast:
            return (
                f"Asked was why not {self.asked_contrast}, which is the decision: the evidence is about "
                f"{self.of_class}, the next class."
            )
        if self.against:
            return f"The map shows what speaks against {self.of_class}, as asked; {decided}."
        return f"The evidence is about {self.of_class}, as asked; {decided}."

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "contrast": self.contrast,
            "sentence": self.sentence,
            "contrast_sentence": self.contrast_sentence,
            "against": self.against,
            "is_decision": self.is_decision,
            "said": self.said,
        }
