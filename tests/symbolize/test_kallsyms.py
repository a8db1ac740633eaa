import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprof.symbolize.kallsyms import KernelSymbol, KernelSymbols, kernel_symbols

TEXT = b"""\
ffffffff81000000 T srso_alias_untrain_ret
ffffffff81000000 T _stext
ffffffff81000000 T __pi__text
ffffffff81000010 t finish_task_switch.isra.0
ffffffff81000100 t local_alias
ffffffff81000100 T ksys_read
ffffffff81000100 W weak
ffffffff81000200 T __x
ffffffff81000200 T yy
ffffffff81000200 T xx
ffffffff81000300 T last_function
ffffffff81000400 T _etext
ffffffff82000000 D jiffies
ffffffff82000040 T code_after_data
ffffffffc0403000 t nf_late\t[nf_tables]
ffffffffc0a1d6f4 t bpf_prog_6deef7357e7b4530_sd_fw\t[bpf]
ffffffffc0201000 t nf_early\t[nf_conntrack]
"""


@pytest.fixture
def symbols() -> KernelSymbols:
    return KernelSymbols(TEXT)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (0xFFFFFFFF81000000, KernelSymbol("srso_alias_untrain_ret", "", 0)),
        (0xFFFFFFFF81000011, KernelSymbol("finish_task_switch.isra.0", "", 1)),
        (0xFFFFFFFF81000180, KernelSymbol("ksys_read", "", 0x80)),
        (0xFFFFFFFF81000200, KernelSymbol("xx", "", 0)),
        (0xFFFFFFFF810003FF, KernelSymbol("last_function", "", 0xFF)),
        (0xFFFFFFFF82000040, KernelSymbol("code_after_data", "", 0)),
        (0xFFFFFFFFC0201001, KernelSymbol("nf_early", "nf_conntrack", 1)),
        (0xFFFFFFFFC0403001, KernelSymbol("nf_late", "nf_tables", 1)),
        (0xFFFFFFFFC0A1D700, KernelSymbol("bpf_prog_6deef7357e7b4530_sd_fw", "bpf", 12)),
    ],
)
def test_an_address_has_the_best_name_of_its_function(
    symbols: KernelSymbols, address: int, expected: KernelSymbol
) -> None:
    assert symbols.symbol(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        0,
        0xFFFFFFFF80FFFFFF,  # before the first
        0xFFFFFFFF81000400,  # _etext: behind the core kernel's code
        0xFFFFFFFF81000500,
        0xFFFFFFFF82000020,  # data
        0xFFFFFFFFC0301000,  # 1 MiB after nf_early
        0xFFFFFFFFFFFFFFFF,
        1 << 70,
    ],
)
def test_an_address_outside_of_every_function_has_no_name(symbols: KernelSymbols, address: int) -> None:
    assert symbols.symbol(address) is None


def test_kernels_of_32_bits_are_read_too() -> None:
    symbols = KernelSymbols(b"c0100000 T start\nc0100100 T stop\n")
    assert symbols.symbol(0xC0100001) == KernelSymbol("start", "", 1)


def test_order_of_lines_does_not_matter() -> None:
    lines = TEXT.splitlines(keepends=True)
    ordered, shuffled = KernelSymbols(TEXT), KernelSymbols(b"".join(lines[1::2] + lines[::2][::-1]))
    for address in (0xFFFFFFFF81000000, 0xFFFFFFFF81000180, 0xFFFFFFFF81000200):
        assert ordered.symbol(address) == shuffled.symbol(address)


def test_names_are_printable() -> None:
    symbols = KernelSymbols(b"ffffffff81000000 T \x1b[2J\t[\xff]\n")
    assert symbols.symbol(0xFFFFFFFF81000000) == KernelSymbol(r"\x1b[2J", r"\xff", 0)


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(0, 1 << 64))
def test_lines_of_a_bpf_program_name_cannot_break_the_lookup(names: list[bytes], address: int) -> None:
    text = b"".join(
        b"%016x t %s\n" % (index * 16, name.replace(b"\n", b"")) for index, name in enumerate(names)
    )
    KernelSymbols(text).symbol(address % (16 * len(names) + 1))


def _hidden(tmp_path: Path, text: str, restrict: str) -> str:
    (tmp_path / "kallsyms").write_text(text)
    (tmp_path / "kptr_restrict").write_text(restrict + "\n")
    found = kernel_symbols(str(tmp_path / "kallsyms"), sysctl_folder=str(tmp_path))
    assert found.symbol(0) is None
    return found.hidden


def test_zero_addresses_are_explained(tmp_path: Path) -> None:
    zeros = "0000000000000000 T _stext\n0000000000000000 t work\n"
    assert _hidden(tmp_path, zeros, "2") == (
        "kernel symbols hidden (kernel.kptr_restrict=2): "
        "kernel frames shown as [kernel]; set it to 1 or use -U"
    )
    assert "kernel.kptr_restrict=1, CAP_SYSLOG missing" in _hidden(tmp_path, zeros, "1")
    assert "CONFIG_KALLSYMS" in _hidden(tmp_path, "", "0")
    assert _hidden(tmp_path, TEXT.decode(), "0") == ""


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    assert "No such file" in kernel_symbols(str(tmp_path / "none")).hidden


def test_the_running_kernel_is_read_in_time_and_every_answer_is_an_alias() -> None:
    text = Path("/proc/kallsyms").read_bytes()
    start = time.process_time()
    symbols = KernelSymbols(text)
    assert time.process_time() - start < 0.15
    if kernel_symbols().hidden:
        pytest.skip(kernel_symbols().hidden)
    aliases: dict[int, set[str]] = {}
    for line in text.decode().splitlines():
        aliases.setdefault(int(line.split()[0], 16), set()).add(line.split()[2])
    for address in sorted(aliases)[::50]:
        found = symbols.symbol(address)
        assert found is None or (found.offset == 0 and found.name in aliases[address]) or found.offset > 0
        if found is not None:
            assert found.name in aliases[address - found.offset]
