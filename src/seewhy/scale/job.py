"""The output of a long run: a manifest, one Parquet file per shard, and ``_SUCCESS`` at the end."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import DataError, ForeignFileError
from ..storage.marks import MADE_BY
from ..storage.parquet_seal import SEAL, sealed_metadata, sealed_writer
from ..storage.reading import file_sha256, read_json, readable, reason
from ..types import Failure
from .inputs import Input, Item, Shard, ShardError
from .places import Place, Where, find_place
from .work import Model, Opened

MANIFEST = "_manifest.json"
"""Name of the manifest; readers of Parquet folders skip names with a leading underscore."""
SUCCESS = "_SUCCESS"
"""Name of the file that marks a finished run for Hadoop, Spark and others."""
FORMAT = 1
IN_HAND = 512
"""Maximum number of rows in memory before they are written."""
MOST_SHARDS = 1_000_000
MAGIC = b"PAR1"
"""The first bytes of every Parquet file."""
END = 1 << 16
"""Bytes at the end of a shard that are read first; they contain the metadata of most shards."""
AT_ONCE = 16
"""Number of shards whose metadata are read at the same time."""
FIRST = 5
"""Maximum number of failed pictures per shard that are reported during the run; the column ``error`` has all."""


@dataclass(frozen=True)
class Survey:
    """The digest of each shard, and the number of pictures if it is known without opening files."""

    kind: str
    place: str
    digests: tuple[str, ...]
    n_pictures: int | None
    per_shard: int | None = None

    @classmethod
    def of(cls, given: Input) -> Survey:
        digests, n, known = [], 0, True
        for shard in given.shards():
            digests.append(shard.digest)
            names = getattr(shard, "names", None)
            known, n = known and names is not None, n + len(names or ())
        counted = (n, given.per_shard) if known else (None, None)
        return cls(given.kind, os.fspath(given.place), tuple(digests), *counted)

    @property
    def digest(self) -> str:
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()


@dataclass(frozen=True)
class Written:
    """A written shard: its number of rows and failures, the first failures, and a digest of its source files."""

    index: int
    n: int
    n_failed: int
    first: tuple[tuple[str, str], ...] = ()
    stamp: str = ""


@dataclass(frozen=True)
class Job:
    """A run with its output folder. Every shard stores the digest of the run."""

    place: Place
    facts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return self.facts["digest"]

    @property
    def n_shards(self) -> int:
        return self.facts["n_shards"]

    def name(self, index: int) -> str:
        digits = max(5, len(str(self.n_shards)))
        return f"shard-{index:0{digits}}-of-{self.n_shards:0{digits}}.parquet"

    def written(self, index: int) -> Written | None:
        """Return a shard if it is complete and belongs to this job, otherwise ``None``."""
        from pyarrow import ArrowException, py_buffer

        name = self.name(index)
        try:
            end = self._end(name)
        except FileNotFoundError:
            return None
        try:
            found, _ = sealed_metadata(py_buffer(end))
            facts = found.metadata or {}
            n_failed = int(facts.get(b"n_failed", 0))
        except (OSError, ArrowException, ValueError):  # ValueError: not a number or not UTF-8
            start = self.place.read(name, 0, len(MAGIC))
            if start and start != MAGIC:  # only a damaged shard is overwritten, never another file
                raise self._foreign(name) from None
            return None
        if MADE_BY.encode() not in facts:
            raise self._foreign(name)
        if facts.get(b"job") != self.digest.encode() or facts.get(b"shard") != str(index).encode():
            return None
        return Written(index, found.num_rows, n_failed, stamp=facts.get(b"stamp", b"").decode("ascii", "replace"))

    def _end(self, name: str) -> bytes:
        try:
            end = self.place.read(name, -END)
            if len(end) == END < (length := int.from_bytes(end[-8:-4], "little") + 2 * len(MAGIC) + SEAL):
                end = self.place.read(name, -length)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DataError(
                f"The shard {self.place.at(name)} cannot be read: {reason(error)}. Delete it, then run "
                "the same command again."
            ) from error
        return end

    def all_written(self, indices: Iterable[int]) -> Iterator[Written | None]:
        """Yield the result of :meth:`written` for each index, reading several shards at once."""
        names = self.place.names()
        waiting = iter(indices)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while some := list(islice(waiting, 16 * AT_ONCE)):
                yield from pool.map(lambda index: self.written(index) if self.name(index) in names else None, some)

    def _foreign(self, name: str) -> ForeignFileError:
        return ForeignFileError(
            f"{self.place.at(name)} was not written by SeeWhy. Move it away, or choose another folder for the run."
        )

    def is_of(self, shard: Shard, there: Written) -> bool:
        """Return whether the source of a shard is unchanged; a missing source counts as unchanged.

        Sizes and times of the files are compared first; if they differ, the SHA-256 of each row is compared.
        """
        if there.stamp in ("", shard.stamp):
            return True
        from pyarrow.parquet import ParquetFile

        with self.place.copy(self.name(shard.index)) as path, ParquetFile(path) as file:
            rows = file.read(["digest"])["digest"].to_pylist() if "digest" in file.schema_arrow.names else None
        now = (_content(item) for item in shard.items())
        try:
            if rows is None:  # outputs with decisions and explanations have no digests
                return None in now
            return all(digest in (None, row) for digest, row in zip(now, rows, strict=True))
        except (ShardError, ValueError):  # the number of rows differs, or the shard is unreadable
            return False

    def write(self, shard: Shard, opened: Opened) -> Written:
        return self.place.write_by(self.name(shard.index), lambda part: _write(part, shard, opened, self.digest))

    def finish(self) -> None:
        """Mark the run as finished if every shard exists."""
        names = self.place.names()
        if SUCCESS not in names and all(self.name(index) in names for index in range(self.n_shards)):
            text = json.dumps({"job": self.digest, "n_shards": self.n_shards}, indent=1).encode()
            self.place.write_first(SUCCESS, text)


def claim(output: Where, verb: str, survey: Survey, model: Model) -> Job:
    """Return the job in a new folder, or in the folder of an earlier run of the same job."""
    place, columns = find_place(output), [name for name, _ in model.fields]
    facts: dict[str, Any] = {
        "format": FORMAT, "seewhy": version("seewhy"), "verb": verb, "model": dict(model.identity), "columns": columns,
        "input": {"kind": survey.kind, "digest": survey.digest, "per_shard": survey.per_shard},
        "n_shards": len(survey.digests),
    }  # fmt: skip
    facts["digest"] = _digest(facts)
    facts["input"] |= {"place": survey.place, "n_pictures": survey.n_pictures}
    facts["sha256"] = _sha256(facts)
    names = place.names()
    if names and MANIFEST not in names:
        raise ForeignFileError(f"{place} has files that do not belong to a run. Choose another folder.")
    text = json.dumps(facts, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
    place.write_first(MANIFEST, text)
    job = read_job(place)
    if job.digest != facts["digest"]:
        raise ForeignFileError(
            f"{place} belongs to another run: {'; '.join(_differences(job.facts, facts))}. Choose another folder, or "
            "run with the same input and options as before."
        )
    return job


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences between the job in the folder and the current job."""
    for key in ("verb", "seewhy", "columns"):
        if there[key] != here[key]:
            yield f"{key} {there[key]}, not {here[key]}"
    for key in sorted({*there["model"], *here["model"]}):
        if there["model"].get(key) != here["model"].get(key):
            yield f"the {key} {there['model'].get(key)}, not {here['model'].get(key)}"
    per_shard = there["input"]["per_shard"], here["input"]["per_shard"]
    if None not in per_shard and per_shard[0] != per_shard[1]:
        yield "{} pictures per shard, not {}".format(*per_shard)
    elif there["input"]["digest"] != here["input"]["digest"]:
        yield f"other pictures ({there['input']['place']}), not those of {here['input']['place']}"


def read_job(output: Where) -> Job:
    place = find_place(output)
    manifest = place.at(MANIFEST)
    with readable(f"The manifest {manifest}", "Choose another folder for the run."):
        try:
            with place.copy(MANIFEST) as path:
                facts = read_json(path)
        except FileNotFoundError as error:
            raise DataError(f"{place} has no {MANIFEST}. Give the output folder of seewhy index --parquet.") from error
    whole = isinstance(facts, dict) and facts.get("format") == FORMAT
    whole = whole and facts.pop("sha256", None) in (None, _sha256(facts))
    if not (whole and _is_told(facts) and facts["digest"] == _digest(facts)):
        raise ForeignFileError(
            f"The manifest {manifest} was changed or written by another version. Choose another folder for the run."
        )
    return Job(place, facts)


def _digest(facts: Mapping[str, Any]) -> str:
    """Return the digest of a job, which does not depend on the place of its pictures."""
    told = {"kind", "digest", "per_shard"}
    own = {**facts, "input": {k: v for k, v in facts["input"].items() if k in told}}
    own.pop("digest", None)
    return _sha256(own)


def _sha256(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _is_told(facts: Mapping[str, Any]) -> bool:
    kinds = {"digest": str, "verb": str, "seewhy": str, "model": dict, "columns": list, "input": dict, "n_shards": int}
    return (
        all(isinstance(facts.get(name), kind) for name, kind in kinds.items())
        and all(isinstance(facts["input"].get(name), str) for name in ("kind", "place"))
        and type(facts["n_shards"]) is int
        and 0 <= facts["n_shards"] <= MOST_SHARDS
    )


def _write(part: Path, shard: Shard, opened: Opened, digest: str) -> Written:
    import pyarrow as pa

    facts = {MADE_BY: version("seewhy"), "job": digest, "shard": str(shard.index), "input": shard.digest}
    facts["stamp"] = shard.stamp
    schema = pa.schema(opened.model.fields, metadata=facts)
    n, failed, rows = 0, [], _rows(shard, opened)
    with sealed_writer(part, schema) as writer:
        while batch := list(islice(rows, IN_HAND)):
            n += len(batch)
            failed += [(row["image"], row["error"]) for row in batch if row.get("error") is not None]
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
        writer.add_key_value_metadata({**facts, "n_failed": str(len(failed))})
    return Written(shard.index, n, len(failed), tuple(failed[:FIRST]))


def _content(item: Item) -> str | None:
    try:
        if isinstance(item.source, str):
            return file_sha256(item.source)
        return hashlib.sha256(item.source.load()).hexdigest()
    except OSError:
        return None


def _rows(shard: Shard, opened: Opened) -> Iterator[dict[str, Any]]:
    names: list[str] = []

    def sources() -> Iterator[Any]:
        for item in shard.items():
            names.append(item.name)
            yield item.source

    for result in opened.results(sources()):
        name = names.pop(0).encode("utf-8", "backslashreplace").decode()
        yield {"image": name, "error": result.error} if isinstance(result, Failure) else {"image": name, **result}
