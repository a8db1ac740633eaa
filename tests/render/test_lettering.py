"""Text fitted into boxes and lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprof.render.lettering import CELL_PX, cells, fitted, short_names, wrapped


@given(st.text(), st.floats(0, 500))
def test_fitted_text_is_no_wider_than_its_box(name: str, width_px: float) -> None:
    assert cells(fitted(short_names(name), width_px)) * CELL_PX <= width_px


def test_a_box_too_narrow_for_a_word_stays_empty() -> None:
    assert fitted(("main",), 20) == ""


def test_wide_characters_take_two_cells() -> None:
    assert cells("漢字a") == 5
    assert fitted(("漢字漢字",), 5 * CELL_PX + 6) == "漢字…"


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("main", ()),
        ("LazyCompile:*f app.js:1", ()),
        (
            "std::vector<int>::push_back(int&&)",
            ("std::vector::push_back", "…vector::push_back", "…push_back"),
        ),
        (
            "(anonymous namespace)::run(char const*)::{lambda(int)#1}::operator()(int) const",
            ("run::operator const", "…run::operator const", "…operator const"),
        ),
        ("ns::operator<(int, int)", ()),
        ("ns::A<(unsigned char)62>::f()", ("ns::A::f", "…A::f", "…f")),
        ("ns::broken<", ()),
    ],
)
def test_cxx_names_are_shortened_from_the_front(name: str, forms: tuple[str, ...]) -> None:
    assert short_names(name) == (name, *forms)


def test_the_longest_fitting_form_is_taken() -> None:
    names = short_names("std::vector<int>::push_back(int&&)")
    assert fitted(names, 25 * CELL_PX) == "std::vector::push_back"
    assert fitted(names, 12 * CELL_PX) == "…push_back"
    assert fitted(names, 8 * CELL_PX) == "…push_…"


def test_wrapped_lines_break_between_phrases() -> None:
    assert wrapped(["one two", "three", "four"], 16 * CELL_PX) == ["one two · three", "four"]
    assert wrapped([], 100) == []


def test_a_long_phrase_is_cut_at_a_space() -> None:
    assert wrapped(["one two three four"], 14 * CELL_PX) == ["one two three", "four"]


@given(st.lists(st.text(min_size=1), max_size=4), st.floats(1, 400))
def test_wrapped_lines_fit(phrases: list[str], width_px: float) -> None:
    assert all(cells(line) <= max(width_px / CELL_PX, 10) for line in wrapped(phrases, width_px))
