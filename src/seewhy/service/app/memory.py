"""What the page remembers while it runs: pictures, and what each reader did. Nothing goes to the disk."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ...classifiers.base import Classifier
from ...encoders.stream import Encoded
from ...explanation.base import Explanation

T = TypeVar("T")
N_EXPLANATIONS = 6


class Bounded(Generic[T]):
    """Things by name, the least lately used dropped first; safe between threads."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._items: OrderedDict[object, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object) -> T | None:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def put(self, key: object, value: T) -> None:
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            while len(self._items) > self.most:
                self._items.popitem(last=False)

    def values(self) -> list[T]:
        with self._lock:
            return list(self._items.values())

    def __len__(self) -> int:
        return len(self._items)


@dataclass(frozen=True)
class Shown:
    """One picture that was looked at."""

    id: str
    seen: Encoded
    label: str | None = None
    explanations: Bounded[Explanation] = field(default_factory=lambda: Bounded(N_EXPLANATIONS))


@dataclass
class Reader:
    """One reader's session."""

    id: str
    recent: deque[str]
    edited: Classifier | None = None
    version: int = 0


class Memory:
    """All that is kept."""

    def __init__(self, n_pictures: int, n_readers: int, n_recent: int) -> None:
        self.pictures: Bounded[Shown] = Bounded(n_pictures)
        self.readers: Bounded[Reader] = Bounded(n_readers)
        self.editors: Bounded[Reader] = Bounded(n_readers)
        self.n_recent = n_recent

    def keep(self, seen: Encoded, label: str | None = None) -> Shown:
        shown = Shown(secrets.token_urlsafe(16), seen, label)
        self.pictures.put(shown.id, shown)
        return shown

    def reader(self, cookie: str | None) -> Reader:
        """The reader of a cookie; a new one where it is not known, who is kept from the first picture or edit on."""
        found = None if cookie is None else self.editors.get(cookie) or self.readers.get(cookie)
        return found or Reader(secrets.token_urlsafe(16), deque(maxlen=self.n_recent))

    def remember(self, reader: Reader) -> None:
        """Keep a reader, who has shown a picture or edited words."""
        (self.readers if reader.edited is None else self.editors).put(reader.id, reader)

    def recent(self, reader: Reader) -> list[Shown]:
        """A reader's last pictures that are still kept, the newest first."""
        found = (self.pictures.get(one) for one in reader.recent)
        return [shown for shown in found if shown is not None]
