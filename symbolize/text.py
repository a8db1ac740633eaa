"""Printable text out of names that somebody else chose: symbols, thread names, paths.

A name may hold anything: an escape sequence that rewrites the terminal, a newline that forges a record,
a character that reverses the order of the line, bytes that are not UTF-8. Nothing of that may reach a
file or a terminal. Escaping for a format (`<` in SVG, `;` in folded stacks) belongs to the format.

Source: Unicode 15 chapter 23 (controls, bidirectional formatting), UAX #9; PEP 383 (surrogateescape).
"""

import re

NAME_LIMIT = 4096  # characters of one name
ELLIPSIS = "…"

# C0, DEL and C1 | Arabic letter mark, left-to-right and right-to-left mark | line and paragraph separator,
# embeddings and overrides | isolates | surrogates without a partner | byte order mark, non-characters
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def printable(text: str | bytes, limit: int = NAME_LIMIT) -> str:
    r"""Return `text` with everything that is not plain printable Unicode spelled out.

    Characters below U+0100 and bytes that are not UTF-8 become `\x1b`, others `\u202e`. A byte that a
    decoder kept as a lone surrogate (U+DC80 to U+DCFF) becomes the byte again: `\xff`. A backslash stays
    as it is, so printable(printable(x)) == printable(x). At most `limit` characters (at least 1); a
    longer text ends in an ellipsis.
    """
    if isinstance(text, bytes):
        text = text[: 4 * limit + 4].decode("utf-8", "surrogateescape")
    if not (text.isascii() and text.isprintable()):
        text = _UNPRINTABLE.sub(_spelled_out, text[: limit + 1])
    if len(text) > limit:
        text = text[: limit - 1] + ELLIPSIS
    return text


def _spelled_out(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
