"""Colours: stable, by kind, legible below black text."""

from hypothesis import given
from hypothesis import strategies as st

from pyprof.render.palette import KIND_WORDS, frame_colour, kind_colour
from pyprof.symbolize.frame import FrameKind


def _luminance(colour: str) -> float:
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@given(st.text(st.characters(exclude_categories=())), st.sampled_from(FrameKind))
def test_black_text_has_enough_contrast_on_every_colour(name: str, kind: FrameKind) -> None:
    assert (_luminance(frame_colour(name, kind)) + 0.05) / 0.05 >= 4.5  # WCAG 2, level AA


def test_a_name_keeps_its_colour() -> None:
    assert frame_colour("main", FrameKind.USER) == "#f6ce6a"


def test_kinds_differ() -> None:
    assert len({kind_colour(kind) for kind in FrameKind}) == len(FrameKind)
    assert len({frame_colour("read", kind) for kind in FrameKind}) == len(FrameKind)


def test_every_kind_has_a_word() -> None:
    assert set(KIND_WORDS) == set(FrameKind)
