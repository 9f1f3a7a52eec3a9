"""What may happen to a saved file, drawn by hypothesis: by its kind where that is known, else byte by byte."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

OUTSIDE = "outside.txt"
"""Lies beside the folder of the case; nothing read may lead there."""
PICKLE = b"cos\nsystem\n(S'touch pickled'\ntR."
TEXTS = (
    "", " ", "\0", "\n", f"../{OUTSIDE}", "/etc/passwd", "/dev/zero", ".", "..", "a/b", "*?[", "\ud800", "\u202e",
    "\x1b[31m", "=1+1", "-1", "0", "nan", "NaN", "inf", "-inf", "1e999", "1e308", "9" * 5000, "0x10", "null", "true",
    "x" * 200_000, "%s%n", "{0.__class__}", "http://127.0.0.1:9/x", "&a [*a, *a]", "*a", '"', "'", ",", "\t", "<", ">",
    "&lol;", "]]>", "!!python/object/apply:os.system ['touch pickled']", "[" * 100_000, "- " * 50_000, "{a: " * 5000,
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>', "\ufeff", "é", "١٢", "²", "1_000",
    "2147483648", "18446744073709551616", "00", "+5", "1.5", "1,5",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30)
RAW = {f"@raw{i}@": raw for i, raw in enumerate(("NaN", "-Infinity", "1e999", "9" * 5000, "[" * 5000 + "]" * 5000))}
VALUES: tuple[Any, ...] = (
    None, True, False, *NUMBERS, 0.5, -0.5, 1e-320, 1e308, "", "\ud800", "\0", "\x1b[31m\n", f"../{OUTSIDE}",
    "/etc/passwd", "x" * 100_000, "lite0", "nan", [], {}, [[]], [None], [0] * 10_000, {"": 0}, {"a": {"b": None}}, *RAW,
)  # fmt: skip
MAGICS = (
    b"", PICKLE, b"\x80\x04" + PICKLE, b"PK\3\4", b"[" * 100_000, (1 << 62).to_bytes(8, "little") + b"{}", b"\0" * 4096,
    b"SQLite format 3\0" + bytes(100), b"\xff\xfe{\0", b"\x1f\x8b\x08",
)  # fmt: skip


def one_of(draw: Draw, things: Any) -> Any:
    return draw(st.sampled_from(list(things)))


def below(draw: Draw, n: int) -> int:
    return draw(st.integers(0, max(n - 1, 0)))


def of_bytes(draw: Draw, data: bytes) -> bytes:
    """One to four changes of bits, bytes, numbers, pieces."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = below(draw, len(out) + 1)
        how = one_of(draw, ("flip", "number", "cut", "drop", "again", "zeros", "insert", "magic"))
        size = draw(st.integers(1, 64))
        if how == "flip" and at < len(out):
            out[at] ^= 1 << below(draw, 8)
        elif how == "number":
            width, order = one_of(draw, (1, 2, 4, 8)), one_of(draw, ("little", "big"))
            out[at : at + width] = (one_of(draw, NUMBERS) % 2 ** (8 * width)).to_bytes(width, order)
        elif how == "cut":
            del out[at:]
        elif how == "drop":
            del out[at : at + size]
        elif how == "again":
            out[at:at] = out[at : at + size] * draw(st.integers(1, 200))
        elif how == "zeros":
            out[at : at + size] = bytes(len(out[at : at + size]))
        elif how == "insert":
            out[at:at] = draw(st.binary(max_size=16))
        elif how == "magic" and below(draw, 8) == 0:
            out = bytearray(one_of(draw, MAGICS))
    return bytes(out)


def of_value(draw: Draw, value: Any) -> Any:
    """A tree of JSON with one place changed."""
    places = [(), *_places(value)]
    for _ in range(draw(st.integers(1, 2))):
        path = one_of(draw, places)
        with suppress(LookupError, TypeError, AttributeError):  # a second change, where the first took the place away
            value = _put(draw, value, path, one_of(draw, ("value", "value", "value", "drop", "rename", "swap", "many")))
    return value


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value[:20]) if isinstance(value, list) else ()
    return [found for key, one in pairs for found in [(*at, key), *_places(one, (*at, key))]][:2000]


def _put(draw: Draw, value: Any, path: tuple[Any, ...], how: str) -> Any:
    if not path:
        return one_of(draw, VALUES) if how == "value" and below(draw, 8) == 0 else value
    copy = json.loads(json.dumps(value))
    inside = copy
    for key in path[:-1]:
        inside = inside[key]
    last = path[-1]
    if how == "drop":
        del inside[last]
    elif how == "rename" and isinstance(inside, dict):
        inside[one_of(draw, (*TEXTS, *inside))[:1000]] = inside.pop(last)
    elif how == "swap":
        inside[last] = _at(copy, one_of(draw, _places(copy)))
    elif how == "many" and isinstance(inside[last], list):
        inside[last] = inside[last] * draw(st.integers(2, 300))
    else:
        inside[last] = one_of(draw, VALUES)
    return json.loads(json.dumps(copy))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def dumped(value: Any) -> bytes:
    text = json.dumps(value)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


def of_json(draw: Draw, data: bytes) -> bytes:
    if below(draw, 5) == 0:
        return of_text(draw, data)
    return dumped(of_value(draw, json.loads(data)))


def of_jsonl(draw: Draw, data: bytes) -> bytes:
    lines = data.splitlines()
    at = below(draw, len(lines))
    lines[at] = of_json(draw, lines[at])
    return b"\n".join(lines) + b"\n"


def of_text(draw: Draw, data: bytes) -> bytes:
    """Words and signs changed, dropped, doubled, moved."""
    words = re.findall(r"\w[\w.-]*|\s|.", data.decode("utf-8", "surrogateescape"))
    for _ in range(draw(st.integers(1, 4))):
        at, how = below(draw, len(words)), one_of(draw, ("put", "put", "insert", "drop", "again", "swap", "bytes"))
        if how == "put" and words:
            words[at] = one_of(draw, TEXTS)
        elif how == "insert":
            words.insert(at, one_of(draw, TEXTS))
        elif how == "drop":
            del words[at : at + draw(st.integers(1, 10))]
        elif how == "again":
            words[at:at] = words[at : at + draw(st.integers(1, 20))] * draw(st.integers(1, 100))
        elif how == "swap" and words:
            other = below(draw, len(words))
            words[at], words[other] = words[other], words[at]
        elif how == "bytes" and below(draw, 4) == 0:
            return of_bytes(draw, data)
    return "".join(words).encode("utf-8", "surrogatepass" if below(draw, 2) else "replace")


def of_tensors(draw: Draw, data: bytes) -> bytes:
    """The header's JSON, its length, or the numbers."""
    how = one_of(draw, ("header", "header", "numbers", "numbers", "bytes"))
    size = int.from_bytes(data[:8], "little")
    if how == "bytes":
        return of_bytes(draw, data)
    if how == "header":
        header = dumped(of_value(draw, json.loads(data[8 : 8 + size])))
        return len(header).to_bytes(8, "little") + header + data[8 + size :]
    out, width = bytearray(data), one_of(draw, (2, 4, 8))
    for _ in range(draw(st.integers(1, 4))):
        at = 8 + size + below(draw, max(len(data) - 8 - size - width, 1))
        number = one_of(draw, (float("nan"), float("inf"), -1e30, 0.0, 1e-40))
        packed = struct.pack({2: "<f", 4: "<f", 8: "<d"}[width], number)[-width:]
        out[at : at + width] = packed if below(draw, 2) else b"\xff" * width
    return bytes(out[: len(data)])


def of_database(draw: Draw, data: bytes) -> bytes:
    """Cells, tables and what acts by itself; or bytes."""
    if below(draw, 3) == 0:
        return of_bytes(draw, data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.sqlite")
        path.write_bytes(data)
        db = sqlite3.connect(path, isolation_level=None)
        try:
            for _ in range(draw(st.integers(1, 2))):
                _statement(draw, db)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            pass
        finally:
            db.close()
        return path.read_bytes()


def _statement(draw: Draw, db: sqlite3.Connection) -> None:
    db.execute("PRAGMA ignore_check_constraints=ON")
    tables = sorted(row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
    table = one_of(draw, tables)
    columns = [row[1] for row in db.execute(f'PRAGMA table_info("{table}")')]
    column, how = one_of(draw, columns), one_of(draw, ("cell", "cell", "cell", "cell", "json", "delete", "more"))
    rows = db.execute(f'SELECT "{column}" FROM "{table}"').fetchall()
    if not rows:
        return
    cell = one_of(draw, rows[:50])[0]
    if how == "json":
        try:
            new: Any = dumped(of_value(draw, json.loads(cell))).decode()
        except (TypeError, ValueError):
            new = of_bytes(draw, cell) if isinstance(cell, bytes) else None
    elif how == "cell":
        new = one_of(draw, (None, 0, -1, 2**62, 0.5, b"", b"\xff", "", "\ud7ff", f"../{OUTSIDE}", "{}", "[1]", "NaN"))
    else:
        other = "CREATE TRIGGER t AFTER UPDATE ON {0} BEGIN DELETE FROM {0}; END", "DROP TABLE {0}"
        db.execute(f'DELETE FROM "{table}"' if how == "delete" else one_of(draw, other).format(f'"{table}"'))
        return
    db.execute(f'UPDATE OR REPLACE "{table}" SET "{column}" = ? WHERE "{column}" IS ?', (new, cell))


def of_tar(draw: Draw, data: bytes) -> bytes:
    if below(draw, 3) == 0:
        return of_bytes(draw, data)
    made = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=made, mode="w") as new:
        members = old.getmembers()
        at = below(draw, len(members))
        for i, member in enumerate(members):
            content = old.extractfile(member).read()  # type: ignore[union-attr]
            if i == at:
                how = one_of(draw, ("name", "kind", "content", "size", "pax", "twice"))
                if how == "name":
                    member.name = one_of(draw, TEXTS).replace("\ud800", "?")[:200]
                elif how == "kind":
                    member.type = one_of(
                        draw, (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S")
                    )
                    member.linkname = f"../{OUTSIDE}"
                elif how == "content":
                    content = changed(draw, member.name, content)
                elif how == "pax":
                    member.pax_headers = {one_of(draw, ("size", "path", "GNU.sparse.map")): one_of(draw, TEXTS[:30])}
                elif how == "twice":
                    new.addfile(member, io.BytesIO(content))
                member.size = one_of(draw, NUMBERS) % 2**33 if how == "size" else len(content)
            try:
                new.addfile(member, io.BytesIO(content))
            except (OSError, ValueError, UnicodeError):
                new.fileobj.write(content)  # type: ignore[union-attr]
    return made.getvalue()


def of_parquet(draw: Draw, data: bytes) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if below(draw, 3) == 0:
        return of_bytes(draw, data)
    table = pq.read_table(io.BytesIO(data))
    at = below(draw, table.num_columns)
    name, n = table.column_names[at], table.num_rows
    how = one_of(draw, ("values", "rename", "drop", "twice", "facts", "empty"))
    if how == "values":
        fill = one_of(
            draw, (None, 0, -1.5, float("nan"), "", "\0", "../x", b"\xff", [1], [], {"bytes": b"x"}, [[1.0]], True)
        )
        table = table.set_column(at, name, pa.array([fill] * n))
    elif how == "rename":
        table = table.rename_columns(
            [one_of(draw, ("", "image", "error", "x\0")) if c == name else c for c in table.column_names]
        )
    elif how == "drop":
        table = table.drop_columns([name])
    elif how == "twice":
        table = table.append_column(name, table.column(at))
    elif how == "facts":
        facts = dict(table.schema.metadata or {})
        facts[one_of(draw, (*facts, b"job"))] = one_of(draw, (b"", b"\xff", b"-1", b"x", b"9" * 5000))
        table = table.replace_schema_metadata(facts)
    else:
        table = table.slice(0, 0)
    made = io.BytesIO()
    pq.write_table(table, made)
    return made.getvalue()


def of_png(draw: Draw, data: bytes) -> bytes:
    """Chunks changed, with sums that fit them."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    at = below(draw, len(chunks))
    kind, content = chunks[at]
    if kind == b"IDAT" and below(draw, 2):
        content = zlib.compress(of_bytes(draw, zlib.decompress(content)) if len(chunks) == 3 else content)
    else:
        content = of_bytes(draw, content)
    kinds = (kind, kind, kind, b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IDAT")
    chunks[at : at + 1] = [(one_of(draw, kinds), content)] * draw(st.integers(1, 3))
    return data[:8] + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )


KINDS: dict[str, Callable[[Draw, bytes], bytes]] = {
    ".json": of_json, ".jsonl": of_jsonl, ".csv": of_text, ".tsv": of_text, ".txt": of_text, ".xml": of_text,
    ".yaml": of_text, ".safetensors": of_tensors, ".sqlite": of_database, ".tar": of_tar, ".parquet": of_parquet,
    ".toml": of_text,
}  # fmt: skip


def changed(draw: Draw, name: str, data: bytes) -> bytes:
    """A file's bytes after what may happen to one of its kind; once it is none, to any bytes."""
    suffix = PurePosixPath(name).suffix
    try:
        if suffix == ".png" and below(draw, 2):
            return of_png(draw, data)
        return KINDS.get(suffix, of_bytes)(draw, data)
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError):
        return of_bytes(draw, data)
    except (sqlite3.Error, struct.error, tarfile.TarError, zlib.error):
        return of_bytes(draw, data)
