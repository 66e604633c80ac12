"""XML metadata of products, read without entities."""

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from shards.errors import BadInput


def read_xml(path: Path) -> Element:
    """The root of an XML file.

    Raises:
        BadInput: it cannot be read, is no XML, or defines entities (which products never do, and which can grow
            without bound).
    """
    try:
        content = path.read_bytes()
        if b"<!ENTITY" in content:
            raise BadInput(f"{path}: defines XML entities; expected a product's metadata")
        return ElementTree.fromstring(content)  # noqa: S314  entities are refused above
    except (OSError, ElementTree.ParseError) as error:
        raise BadInput(f"{path}: cannot be read as XML: {error}") from error


def local_name(element: Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def numbers(path: Path, elements: list[Element], name: str) -> tuple[float, ...]:
    """The number in one child of each element.

    Raises:
        BadInput: a child is missing or no number.
    """
    found = []
    for place, element in enumerate(elements, start=1):
        text = element.findtext(name)
        try:
            found.append(float(text or ""))
        except ValueError as error:
            raise BadInput(f"{path}: band {place}: {name}: {text!r}, expected a number") from error
    return tuple(found)
