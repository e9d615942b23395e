"""A drawing of a plot made fit for a page with other drawings: only what draws, and names of its own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from markupsafe import Markup

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_DRAWS = {
    *("svg", "g", "defs", "use", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon"),
    *("text", "tspan", "image", "clipPath", "mask", "marker", "pattern"),
    *("linearGradient", "radialGradient", "stop"),
}
"""Elements that are kept. Scripts, links, foreign content, styles of the whole page and metadata are not."""
_REFERENCE = re.compile(r"url\(\s*['\"]?#([^'\")\s]+)['\"]?\s*\)")
_ELSEWHERE = re.compile(r"url\((?!#)|expression|javascript:|@import", re.IGNORECASE)
_PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=\s]*")


def inline(source: bytes, prefix: str, title: str) -> Markup | None:
    """The drawing as an element of a page; None where it cannot be read.

    Args:
        source: an SVG file; its `aria-label` says what it shows, for those who do not see it.
        prefix: goes before every id, so that two drawings on one page do not share any.
        title: what it is called, for them likewise.
    """
    try:
        root = ElementTree.fromstring(source)
    except ElementTree.ParseError:
        return None
    if root.tag != f"{{{_SVG}}}svg":
        return None
    _clean(root, prefix)
    _once(root)
    root.set("role", "img")
    root.set("aria-label", f"{title}. {root.get('aria-label', '')}".strip())
    for name in ("width", "height"):
        root.attrib.pop(name, None)  # the page decides; the view box keeps the shape
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element, prefix: str) -> None:
    for child in list(element):
        if not isinstance(child.tag, str) or child.tag.removeprefix(f"{{{_SVG}}}") not in _DRAWS:
            element.remove(child)
        else:
            _clean(child, prefix)
    for name, value in list(element.attrib.items()):
        kept = _attribute(name, value, prefix)
        if kept is None:
            del element.attrib[name]
        else:
            element.set(name, kept)


def _once(root: ElementTree.Element) -> None:
    """Each id once: of several, the first one is what others refer to."""
    seen = set()
    for element in root.iter():
        name = element.get("id")
        if name in seen:
            del element.attrib["id"]
        elif name is not None:
            seen.add(name)


def _attribute(name: str, value: str, prefix: str) -> str | None:
    if name == "id":
        return prefix + value
    if name in ("href", f"{{{_XLINK}}}href"):
        if value.startswith("#"):
            return f"#{prefix}{value[1:]}"
        return value if _PICTURE.fullmatch(value) else None
    if name.lower().startswith("on") or name.startswith("{") or _ELSEWHERE.search(value):
        return None
    return _REFERENCE.sub(lambda found: f"url(#{prefix}{found.group(1)})", value)
