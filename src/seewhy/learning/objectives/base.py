"""What every objective is: parameters of a paper, and what the tables say of it."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

from ...bounds import check_fields
from ...errors import InputError


class Objective(ABC):
    """A frozen dataclass whose fields are the paper's parameters, with their bounds in their types.

    What is learnt beside the networks, such as a temperature, is a module that ``state()`` makes and a task owns.

    Class attributes:
        name: registered name; ``paper`` is where it is from, ``needs`` what a batch must hold.
        cost: in forward passes a sample, beside those of the network that is trained.
        n_texts: of a picture, that are compared with it at once.
        spans: what is drawn of its texts, as :func:`seewhy.learning.pooled.spans` takes it.
        uses_labels: whether it uses classes, or what is found in pictures, where samples have them.
        plain_pairs: whether pictures with texts are enough; if not, ``options`` of ``seewhy adapt`` give the rest.
        small: settings with which it takes a moment, for tests and trials: ``cls(**cls.small)``.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[str]
    cost: ClassVar[str] = "0"
    n_texts: int = 1
    spans: str = "text"
    uses_labels: ClassVar[bool] = False
    plain_pairs: ClassVar[bool] = True
    options: ClassVar[str] = ""
    small: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        check_fields(self, f"The objective {self.name}")
        self.check()

    def check(self) -> None:
        """Refuse fields that do not go together; most have none."""
        return

    def refusal(self, *names: str, expected: str) -> InputError:
        """The error of fields that do not go together."""
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return InputError(f"The objective {self.name} was given {given}. {expected} expected. Change them.")
