"""Lettering: how much text fits into a width, in a monospaced font of size 12."""

import re
import unicodedata
from functools import lru_cache

CELL_PX = 7.23  # advance of one character; DejaVu Sans Mono 7.22, Menlo 7.22, Consolas 6.6
ELLIPSIS = "…"
_MIN_CELLS = 3  # a shorter label says nothing
_PADDING_PX = 6
MIN_LETTERED_PX = _PADDING_PX + _MIN_CELLS * CELL_PX  # a narrower box has no label
_UNPAIRED = re.compile(r"operator *[<>\[-]")  # their brackets do not pair
_BRACKETS = re.compile(r"<[^<>]*>|\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}")


def cells(text: str) -> int:
    """Return the width of a text in character cells; East Asian wide characters take two."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


@lru_cache(maxsize=4096)
def short_names(name: str) -> tuple[str, ...]:
    """Return the name and ever shorter forms of it, for a box that is too narrow for the whole.

    `std::vector<int>::push_back(int&&)` gives `std::vector::push_back`, `…vector::push_back` and
    `…push_back`: what tells functions apart stands at the end. A name without `::` has no other form.
    """
    text, before = name.replace("operator()", "operator"), ""
    if "::" not in name or _UNPAIRED.search(text):
        return (name,)
    while text != before:
        text, before = _BRACKETS.sub("", text), text
    parts = [part for part in text.strip().split("::") if part]
    if not parts or any(bracket in text for bracket in "<>()[]{}"):
        return (name,)
    return name, "::".join(parts), ELLIPSIS + "::".join(parts[-2:]), ELLIPSIS + parts[-1]


def fitted(names: tuple[str, ...], width_px: float) -> str:
    """Return the first name that fits into a box, else the beginning of the last, or nothing."""
    room = int((width_px - _PADDING_PX) / CELL_PX)
    if room < _MIN_CELLS:
        return ""
    for name in names:
        if cells(name) <= room:
            return name
    return _beginning(names[-1], room - 1) + ELLIPSIS


def wrapped(phrases: list[str], width_px: float, separator: str = " · ") -> list[str]:
    """Return the phrases joined into lines that fit; a phrase longer than a line is cut into several."""
    room = max(int(width_px / CELL_PX), 10)
    lines: list[str] = []
    for phrase in phrases:
        joined = lines[-1] + separator + phrase if lines else phrase
        if lines and cells(joined) <= room:
            lines[-1] = joined
        else:
            lines.extend(_pieces(phrase, room))
    return lines


def _pieces(text: str, room: int) -> list[str]:
    pieces = []
    while cells(text) > room:
        piece = _beginning(text, room)
        space = text.rfind(" ", room // 2, len(piece) + 1)
        piece = piece[:space] if space > 0 else piece
        pieces.append(piece)
        text = text[len(piece) :].lstrip(" ")
    return [*pieces, text]


def _beginning(text: str, room: int) -> str:
    if text.isascii():
        return text[:room]
    taken = 0
    for position, character in enumerate(text):
        taken += cells(character)
        if taken > room:
            return text[:position]
    return text
