"""What clients send, read in memory: no file is opened, none is written, no name of theirs is trusted."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ...errors import InputError

FIELD = "picture"
MOST_FORM_BYTES = 200_000
MOST_FORM_FIELDS = 400
LONGEST_NAME = 120


def form_with(pictures: dict[str, Any]) -> dict[str, Any]:
    """The documented body of a form whose one field is of this schema."""
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: pictures}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


UPLOAD_BODY = form_with({"type": "string", "format": "binary", "description": "One picture file."})


async def read_upload(request: Request, most: int) -> tuple[bytes, str]:
    """The one picture of a form, and what to call it."""
    (found,) = await read_uploads(request, most, 1)
    return found


async def read_uploads(request: Request, most: int, n_most: int) -> list[tuple[bytes, str]]:
    """The pictures of a form in their order, and what to call each; an empty one of several has no bytes."""
    files = "one file" if n_most == 1 else f"1 to {n_most} files"
    expected = f"Expected a form of the type multipart/form-data with {files} in the field {FIELD!r}."
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InputError(f"The request holds no form with a file. {expected} Send one, as the page does.")
    parser = MultiPartParser(request.headers, request.stream(), max_files=n_most, max_fields=8, max_part_size=10_000)
    parser.spool_max_size = most + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "It is damaged"
        raise InputError(f"The form cannot be read: {reason.rstrip('.')}. {expected}") from error
    sent = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
    found = [(await file.read(), shown_name(file.filename or "")) for file in sent]
    await form.close()
    if not any(data for data, _ in found):
        raise InputError(f"No picture came with the form. {expected} Choose a picture first.")
    return found


def shown_name(name: str) -> str:
    """The last part of a client's file name, fit to be shown and used for nothing else.

    >>> shown_name("C:\\\\photos\\\\a.jpg"), shown_name("../../etc/passwd"), shown_name("")
    ('a.jpg', 'passwd', 'picture')
    """
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    clean = "".join(sign for sign in last if sign.isprintable()).strip()
    return clean[:LONGEST_NAME] or "picture"


async def read_form(request: Request) -> list[tuple[str, str]]:
    """The fields of a form that holds text only, in their order."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_FORM_BYTES:
            raise InputError(f"The form holds more than {MOST_FORM_BYTES:,} bytes. Send fewer and shorter texts.")
        parts.append(part)
    try:
        text = b"".join(parts).decode("utf-8")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FORM_FIELDS, errors="strict")
    except ValueError as error:
        raise InputError("The form cannot be read. Send fields in UTF-8, encoded as a web form is.") from error
