import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprof.symbolize.demangle import is_mangled, load, readable_name

HASH = "17h9b2b3a0e5b4d1b31E"


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("main", "main"),
        ("_start", "_start"),
        ("_Z", "_Z"),
        ("_ZN2ns4workEv", "ns::work"),
        ("__ZN2ns4workEv", "ns::work"),
        ("_ZN2ns4workEv.isra.0", "ns::work.isra.0"),
        ("_ZN2ns4workEi.cold", "ns::work.cold"),
        ("_ZN2ns4workEi.llvm.1234567", "ns::work"),
        ("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back"),
        ("_ZZN1A3runEiENKUliE_clEi", "A::run(int)::{lambda(int)#1}::operator()"),
        ("_Z4pickIiEPFvcET_", "pick<int>"),
        (f"_ZN4core3fmt9Formatter3pad{HASH}", "core::fmt::Formatter::pad"),
        (f"_ZN4core3fmt9Formatter3pad{HASH}.11523", "core::fmt::Formatter::pad"),
        (f"_ZN4core3fmt9Formatter3pad{HASH}.cold", "core::fmt::Formatter::pad.cold"),
        (
            f"_ZN65_$LT$smallvec..CollectionAllocErr$u20$as$u20$core..fmt..Debug$GT$3fmt{HASH}",
            "<smallvec::CollectionAllocErr as core::fmt::Debug>::fmt",
        ),
        ("_ZN2ns", "_ZN2ns"),
        ("_Z" + "x" * 5000, "_Z" + "x" * 5000),
        ("_ZN2ns4wörkEv", "_ZN2ns4wörkEv"),
    ],
)
def test_a_name_is_read_without_signature_and_hash(name: str, readable: str) -> None:
    assert readable_name(name) == readable


def test_only_names_of_compilers_are_touched() -> None:
    assert is_mangled("_ZN1fEv")
    assert is_mangled("_RNvC6_123foo3bar")
    assert not is_mangled("_Rb_tree")
    assert not is_mangled("Z3foov")


@pytest.mark.parametrize("name", ["_RNvB_1a", "_RNvC6_123foo3bar.llvm.99", "_RNvC6_123foo3bar"])
def test_rust_v0_names_are_read_where_a_reader_is_installed(name: str) -> None:
    reads = importlib.util.find_spec("pycxxfilt") is not None and not name.startswith("_RNvB_")
    assert readable_name(name) == ("123foo::bar" if reads else name.removesuffix(".llvm.99"))


def doubled(times: int, function: str = "f") -> str:
    """Return a function of pairs of pairs of pairs: each argument is twice as long as the one before."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    pairs = "".join(f"S_IS{digits[n]}_S{digits[n]}_E" for n in range(times))
    return f"_Z{len(function)}{function}St4pairIiiE{pairs}"


def test_a_short_name_never_becomes_a_long_one() -> None:
    assert readable_name(doubled(8)) == "f"
    assert readable_name(doubled(16)) == doubled(16)
    assert readable_name(f"_Z1fI{doubled(9)[14:]}EvT_")
    for times in range(18):
        assert len(readable_name(doubled(times))) <= 4096


@given(st.text("_ZNRvCsIE0123456789abST$u.Lhk", max_size=120))
def test_noise_never_raises(noise: str) -> None:
    for prefix in ("_Z", "_ZN", "_R", "__Z"):
        assert readable_name(prefix + noise)


def test_names_of_a_real_library_are_those_of_cxxfilt() -> None:
    path = Path("/usr/lib/x86_64-linux-gnu/libstdc++.so.6")
    if not path.exists() or shutil.which("c++filt") is None or shutil.which("nm") is None:
        pytest.skip("no libstdc++, nm or c++filt")
    load()
    listing = subprocess.run(["nm", "-D", path], check=True, capture_output=True, text=True).stdout
    mangled = sorted({line.split()[-1].partition("@")[0] for line in listing.splitlines()})
    # S[abdios] are spelled in full by c++filt (std::string is std::basic_string<...>), and it leaves the
    # arguments of thunks and clones.
    mangled = [n for n in mangled if n.startswith("_Z") and not re.search(r"S[abdios]|^_ZT[hvc]|^_ZGT", n)]
    expected = subprocess.run(
        ["c++filt", "-p"], input="\n".join(mangled) + "\n", check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(mangled) > 1000
    assert [readable_name(name) for name in mangled] == expected
