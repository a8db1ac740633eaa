from pathlib import Path

import pytest

from pyprof.symbolize.elf import ElfSymbols
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.layout import elf_layout
from pyprof.symbolize.vdso import vdso_image


def test_the_vdso_is_an_elf_file_with_clock_gettime() -> None:
    image = vdso_image()
    symbols = ElfSymbols(image)
    names = {found.name for offset in range(0, len(image), 16) if (found := symbols.symbol(offset))}
    assert {"clock_gettime", "__vdso_clock_gettime", "__kernel_clock_gettime"} & names
    assert symbols.build_id
    assert elf_layout(image).sections


def test_a_process_without_a_vdso_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("00400000-00401000 r-xp 00000000 08:01 7 /bin/true\n")
    with pytest.raises(SymbolizeError, match="no vdso"):
        vdso_image(tmp_path)


def test_an_unreadable_process_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SymbolizeError, match="cannot be read"):
        vdso_image(tmp_path / "gone")
