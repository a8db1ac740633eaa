import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprof.symbolize.signature import without_signature


@pytest.mark.parametrize(
    ("declaration", "name"),
    [
        ("std::map<int, std::less<int> >::at(int const&)", "std::map<int, std::less<int> >::at"),
        ("void std::sort<int*>(int*, int*)", "std::sort<int*>"),
        ("A::f() const::{lambda(int)#1}::operator()(int) const", "A::f() const::{lambda(int)#1}::operator()"),
        ("bool operator< <char>(std::string const&, char const*)", "operator< <char>"),
        ("std::ostream& operator<< <char>(std::ostream&, char)", "operator<< <char>"),
        ("A::operator->() const", "A::operator->"),
        ("A::operator()(int)", "A::operator()"),
        ("Json::operator std::string() const", "Json::operator std::string"),
        ("Json::operator unsigned int<int>() const", "Json::operator unsigned int<int>"),
        ("operator new(unsigned long)", "operator new"),
        ('operator"" _km(long double)', 'operator"" _km'),
        ("void (*pick<int>(int))(char)", "pick<int>"),
        ("(anonymous namespace)::f((anonymous namespace)::X)", "(anonymous namespace)::f"),
        ("decltype ((a)->b()) f<A>(A)", "f<A>"),
        ("std::string f[abi:cxx11]<int>(int)", "f[abi:cxx11]<int>"),
        ("A::f() &&", "A::f"),
        ("non-virtual thunk to A::f(int) const", "non-virtual thunk to A::f"),
        ("vtable for A<int>", "vtable for A<int>"),
        ("typeinfo for decltype(nullptr)", "typeinfo for decltype(nullptr)"),
        ("ns::variable", "ns::variable"),
        ("f(", "f("),
        ("", ""),
        (")(", ")("),
    ],
)  # fmt: skip
def test_only_the_name_is_left(declaration: str, name: str) -> None:
    assert without_signature(declaration) == name


@given(st.text("(<[{}]>) ,:*&operator<->constAB", max_size=80))
def test_any_text_gives_a_part_of_itself(text: str) -> None:
    name = without_signature(text)
    assert name or not text
    assert len(name) <= len(text)
