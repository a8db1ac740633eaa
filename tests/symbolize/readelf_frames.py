"""The call frame information of a file as readelf prints it.

    0000252c 0000000000000010 00000000 CIE "zRS" cf=1 df=-8 ra=16
       LOC           CFA      ra
    0000000000000000 rsp+8    c-8

    00000018 000000000000002c 0000001c FDE cie=00000000 pc=0000000000001060..00000000000010db
       LOC           CFA      rbx   rbp   ra
    0000000000001060 rsp+8    u     u     c-8
    0000000000001066 rsp+16   r3 (rbx) c-16  c-8

c-16: saved at CFA - 16; v-16: is CFA - 16; u: no rule, or undefined; s: same value; exp, vexp: an expression.
Of an FDE that only has nops no row is printed: its one row is that of its CIE.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_RECORD = re.compile(r"([0-9a-f]+) [0-9a-f]+ [0-9a-f]+ (CIE|FDE) (.*)")
_FDE = re.compile(r"cie=([0-9a-f]+) pc=([0-9a-f]+)\.\.([0-9a-f]+)")
_CELL = re.compile(r"\S+(?: \(\w+\))?")


class Row(NamedTuple):
    start: int  # virtual offset
    limit: int
    cfa: str
    rbp: str
    rbx: str
    rsp: str
    ra: str
    is_signal: bool


def readelf_rows(path: Path, section: str = ".eh_frame") -> Iterator[Row]:
    """Yield all rows of a file's FDEs, in the order of the file."""
    command = ["readelf", "-wNF", path]
    text = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    signals, defaults = {}, {}  # of each CIE, by its place
    for block in text.partition(f"Contents of the {section} section")[2].split("\n\n"):
        if block.startswith("\nContents of the "):
            return
        lines = block.strip("\n").split("\n")
        record = _RECORD.match(lines[0])
        if record and record[2] == "CIE":
            signals[record[1]] = "S" in record[3].split('"')[1]
            defaults[record[1]] = _cells(lines[1:])
        elif record and (fde := _FDE.match(record[3])):
            cie, start, limit = fde[1], int(fde[2], 16), int(fde[3], 16)
            cells = _cells(lines[1:]) or [(start, *row[1:]) for row in defaults[cie][-1:]]
            limits = [row[0] for row in cells[1:]] + [limit]
            for row, row_limit in zip(cells, limits, strict=True):
                if row[0] < min(row_limit, limit):  # some programs go on after the end of the code
                    yield Row(row[0], min(row_limit, limit), *row[1:], signals[cie])


def _cells(lines: list[str]) -> list[tuple[int, str, str, str, str, str]]:
    """Return LOC, CFA, rbp, rbx, rsp and ra of a record's rows; the last of those with one LOC."""
    if not lines:
        return []
    names = lines[0].split()
    columns = [names.index(name) if name in names else None for name in ("rbp", "rbx", "rsp", "ra")]
    rows = {}
    for line in lines[1:]:
        cells = _CELL.findall(line)
        rbp, rbx, rsp, ra = ("u" if column is None else cells[column] for column in columns)
        rows[int(cells[0], 16)] = (int(cells[0], 16), cells[1], rbp, rbx, rsp, ra)
    return list(rows.values())
