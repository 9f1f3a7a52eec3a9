"""What reading everything of a folder of SeeWhy's own came to: which files, and what of them, are not as written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple


class Checked(NamedTuple):
    """A file that was read to its end."""

    file: str
    error: str = ""
    has_sums: bool = True


@dataclass(frozen=True)
class Verification:
    """What there was to say."""

    output: str
    files: tuple[Checked, ...]

    @classmethod
    def of(cls, output: object, files: Iterable[Checked]) -> Verification:
        return cls(str(output), tuple(files))

    @property
    def damaged(self) -> tuple[Checked, ...]:
        return tuple(one for one in self.files if one.error)

    def to_json(self) -> dict[str, Any]:
        unchecked = [one.file for one in self.files if not one.has_sums]
        damaged = [{"file": one.file, "error": one.error} for one in self.damaged]
        return {"output": self.output, "n_files": len(self.files), "damaged": damaged, "unchecked": unchecked}

    def lines(self) -> Iterator[str]:
        """As a person would read it."""
        n = len(self.files)
        unchecked = sum(not one.has_sums for one in self.files)
        whole = n - unchecked - len(self.damaged)
        said = f"{self.output}: {whole:,} of {n:,} files are as they were written, {len(self.damaged):,} damaged"
        yield said + (f", {unchecked:,} without checksums, of an earlier version" if unchecked else "")
        yield from (f"  {one.file}: {one.error}" for one in self.damaged)
