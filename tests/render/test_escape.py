"""Escaping makes hostile text harmless and leaves other text alone."""

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from pyprof.render.escape import xml_text
from pyprof.symbolize.text import printable

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # surrogates too


@given(ANY_TEXT)
def test_xml_text_survives_an_element_and_an_attribute(text: str) -> None:
    parsed = ET.fromstring(f'<a b="{xml_text(text)}">{xml_text(text)}</a>')  # noqa: S314 - our own text
    assert parsed.text or not text
    assert (parsed.text or "") == parsed.get("b") == printable(text)
