"""XML of others, read so that nothing in it can grow, reach out or nest without end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers.expat import ExpatError, ParserCreate

DEEPEST = 32
"""Elements within one another."""


@dataclass
class Element:
    """An element with what is in it; attributes are not kept."""

    tag: str
    parts: list[Element] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Element]:
        """The parts of that name, directly in it."""
        return (part for part in self.parts if part.tag == tag)

    def text_of(self, path: str) -> str:
        """The text of the first part at ``a/b``, without blanks around it; empty where there is none."""
        one: Element | None = self
        for tag in path.split("/"):
            one = next(one.all(tag), None) if one is not None else None
        return "".join(one.pieces).strip() if one is not None else ""


def parse_xml(data: bytes) -> Element:
    """The root of an XML text.

    A declaration of a document type is refused, and with it every entity that could be expanded or fetched.
    """
    top = Element("")
    open_ = [top]

    def start(tag: str, _attributes: object) -> None:
        if len(open_) > DEEPEST:
            raise ValueError("its XML is nested too deeply")
        part = Element(tag)
        open_[-1].parts.append(part)
        open_.append(part)

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which files of boxes do not need")

    parser = ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _tag: open_.pop()
    parser.CharacterDataHandler = lambda text: open_[-1].pieces.append(text)
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except ExpatError as error:
        raise ValueError(f"it is no XML: {error}") from error
    return top.parts[0]
