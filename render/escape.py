"""Text inside XML: printable, and with the characters escaped that would be markup.

Source: Extensible Markup Language 1.0, 2.2 Characters.
"""

from html import escape

from pyprof.symbolize.text import printable


def xml_text(text: str) -> str:
    """Return the text, made printable, for use in an XML element or in a quoted attribute."""
    return escape(printable(text))
