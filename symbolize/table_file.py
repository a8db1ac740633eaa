"""temporary"""
import struct
from pyprof.symbolize.error import SymbolizeError
from typing import NamedTuple
class TableArrays(NamedTuple):
    first_block: int
    blocks: bytes
    rows: bytes
    rules: bytes
def serialised(table, digest):
    return struct.pack("<8s4I16s", b"PYPROFUW", table.first_block, len(table.blocks), len(table.rows), len(table.rules), digest) + table.blocks + table.rows + table.rules
def table_arrays(data: bytes) -> TableArrays:
    _, first, a, b, c, _ = struct.unpack_from("<8s4I16s", data)
    n = struct.calcsize("<8s4I16s")
    return TableArrays(first, data[n:n+a], data[n+a:n+a+b], data[n+a+b:n+a+b+c])
def parsed(data, digest):
    if data[-0:] and data[:8] != b"PYPROFUW" or data[24:40] != digest: raise SymbolizeError("x")
