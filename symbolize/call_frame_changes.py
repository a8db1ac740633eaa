"""What call frame instructions change: the rule for the CFA and for some registers.

Five values are followed, and rbx where a file needs it. Each is a number, so that thousands are compared and
carried at once:

    cfa base           bits 0-4: Cfa, or 16 + register
                       bit 8 set: by the expression with the number in bits 16 and up
    cfa offset         bytes, for a base that is a register
    rbp, ra, rsp, rbx  bits 0-7 Saved, 8 and up: an offset in bytes

Source: DWARF 5, section 6.4.2; gcc libgcc/unwind-dw2.c (execute_cfa_program).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from pyprof.symbolize import call_frame_ops as op
from pyprof.symbolize.arrays import np
from pyprof.symbolize.call_frame_ops import Operations
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame_expression import CfaExpression, cfa_expression, slot_expression
from pyprof.symbolize.leb128 import signed_numbers, unsigned_numbers
from pyprof.symbolize.unwind_rule import Cfa

if TYPE_CHECKING:
    from numpy.typing import NDArray

RBX, RBP, RSP, RA = 3, 6, 7, 16  # DWARF numbers
BY_REGISTER, BY_EXPRESSION = 1 << 4, 1 << 8

_REGISTERS = 16  # that a CFA can be relative to
_EXPRESSION_LIMIT = 16_384  # different ones of a file; a real file has some tens
_USE_LIMIT = 1 << 18  # instructions with one in a file; the largest libraries have ten thousand
_BLOCK_LIMIT = 32  # bytes; no expression that is known is longer


class Saved(IntEnum):
    """Where a register of the caller is. The first five are those of Rbp."""

    DEFAULT = 0  # no rule
    AT_CFA = 1
    UNDEFINED = 2
    AT_RBP = 3
    UNSUPPORTED = 4
    AT_RSP = 5
    SAME = 6


class State(NamedTuple):
    """The values that are followed, for many programs or places."""

    base: NDArray[np.int64]
    offset: NDArray[np.int64]
    rbp: NDArray[np.int64]
    ra: NDArray[np.int64]
    rsp: NDArray[np.int64]
    rbx: NDArray[np.int64] | None = None  # None: not followed


class Change(NamedTuple):
    """Instructions that set one of the values, and what they set it to."""

    operations: NDArray[np.int64]  # indices
    values: NDArray[np.int64]


class Expressions:
    """The expressions that a file uses, and the numbers of those for the CFA."""

    def __init__(self) -> None:
        self.known: list[CfaExpression] = []
        self._numbers: dict[CfaExpression, int] = {}
        self._bases: dict[bytes, int] = {}
        self._slots: dict[bytes, int] = {}
        self._uses = 0

    def bases(self, blocks: list[bytes]) -> NDArray[np.int64]:
        """Return the cfa base for each expression. Raises: SymbolizeError for more than any file has."""
        self._count(len(blocks))
        return np.array([self.base(block) for block in blocks], np.int64)

    def slots(self, blocks: list[bytes]) -> NDArray[np.int64]:
        """Return the rules of registers that are saved where expressions say. Raises: as bases does."""
        self._count(len(blocks))
        return np.array([self._slot(block) for block in blocks], np.int64)

    def base(self, block: bytes) -> int:
        """Return the cfa base for an expression. Raises: as bases does."""
        base = self._bases.get(block)
        if base is None:
            expression = cfa_expression(block)
            base = int(Cfa.UNSUPPORTED)
            if expression is not None:
                number = self._numbers.setdefault(expression, len(self.known))
                self.known += [expression] if number == len(self.known) else []
                base = expression.cfa | BY_EXPRESSION | number << 16
            _add(self._bases, block, base)
        return base

    def _slot(self, block: bytes) -> int:
        rule = self._slots.get(block)
        if rule is None:
            slot = slot_expression(block)
            rule = int(Saved.UNSUPPORTED)
            if slot is not None:
                rule = (Saved.AT_RBP if slot.is_rbp else Saved.AT_RSP) | slot.offset << 8
            _add(self._slots, block, rule)
        return rule

    def _count(self, uses: int) -> None:
        self._uses += uses
        if self._uses > _USE_LIMIT:
            raise SymbolizeError(f"more than {_USE_LIMIT} expressions")


def _add(known: dict[bytes, int], block: bytes, value: int) -> None:
    if len(known) >= _EXPRESSION_LIMIT:
        raise SymbolizeError(f"more than {_EXPRESSION_LIMIT} different expressions")
    known[block] = value


def initial_state(count: int, *, follows_rbx: bool) -> State:
    """Return the state before the first instruction of `count` CIEs: no rule at all."""
    nothing = np.zeros(count, np.int64)
    rbx = nothing if follows_rbx else None
    return State(np.full(count, int(Cfa.UNSUPPORTED)), nothing, nothing, nothing, nothing, rbx)


def state_changes(
    code: NDArray[np.uint8],
    ops: Operations,
    alignments: NDArray[np.int64],
    initial: State,
    expressions: Expressions,
) -> tuple[Change, ...]:
    """Return what changes each value that is followed, in the order of State.

    `alignments` are the data alignments of the programs, `initial` their states after their CIEs.
    """
    base, offset = _cfa_changes(code, ops, alignments, expressions)
    starts = {RBP: initial.rbp, RA: initial.ra, RSP: initial.rsp}
    if initial.rbx is not None:
        starts[RBX] = initial.rbx
    registers, where, saved = _register_changes(code, ops, alignments, expressions, tuple(starts))
    changes = [base, offset]
    for register, start in starts.items():
        chosen = np.flatnonzero(registers == register)
        operations, values = where[chosen], saved[chosen]
        is_restored = _is_one_of(ops.kinds[operations], op.RESTORE, op.RESTORE_EXTENDED)
        changes.append(Change(operations, np.where(is_restored, start[ops.programs[operations]], values)))
    return tuple(changes)


def _cfa_changes(
    code: NDArray[np.uint8], ops: Operations, alignments: NDArray[np.int64], expressions: Expressions
) -> tuple[Change, Change]:
    """Return the changes of cfa base and cfa offset."""
    with_register = _places(ops, op.DEF_CFA, op.DEF_CFA_SF, op.DEF_CFA_REGISTER)
    with_offset = _places(ops, op.DEF_CFA_OFFSET, op.DEF_CFA_OFFSET_SF)
    by_expression = _places(ops, op.DEF_CFA_EXPRESSION)
    registers = unsigned_numbers(code, ops.places[with_register] + 1)
    with_both = ops.kinds[with_register] != op.DEF_CFA_REGISTER
    bases = expressions.bases(_blocks(code, ops.places[by_expression] + 1))
    base = Change(
        np.concatenate([with_register, by_expression]),
        np.concatenate([_BASES[np.minimum(registers.values, _REGISTERS)], bases]),
    )
    operations = np.concatenate([with_register[with_both], with_offset])
    operands = np.concatenate([registers.limits[with_both], ops.places[with_offset] + 1])
    is_factored = _is_one_of(ops.kinds[operations], op.DEF_CFA_SF, op.DEF_CFA_OFFSET_SF)
    values = unsigned_numbers(code, operands).values
    factored = signed_numbers(code, operands[is_factored]).values
    values[is_factored] = factored * alignments[ops.programs[operations[is_factored]]]
    return base, Change(operations, values)


def _register_changes(
    code: NDArray[np.uint8],
    ops: Operations,
    alignments: NDArray[np.int64],
    expressions: Expressions,
    followed: tuple[int, ...],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return registers of those followed, the instructions that change their rules, and the rules."""
    where = np.flatnonzero(_SAVED[ops.kinds] >= 0)
    is_short = ops.kinds[where] >= op.OFFSET
    registers = (code[ops.places[where]] & 0x3F).astype(np.int64)
    operands = ops.places[where] + 1
    numbers = unsigned_numbers(code, operands[~is_short])
    registers[~is_short], operands[~is_short] = numbers
    chosen = np.flatnonzero(_is_one_of(registers, *followed))
    registers, where, operands = registers[chosen], where[chosen], operands[chosen]
    kinds = ops.kinds[where]
    saved = _SAVED[kinds].astype(np.int64)
    at_cfa = np.flatnonzero(saved == Saved.AT_CFA)
    is_signed = kinds[at_cfa] == op.OFFSET_EXTENDED_SF
    unsigned, signed = (read(code, operands[at_cfa]).values for read in (unsigned_numbers, signed_numbers))
    offsets = np.where(is_signed, signed, unsigned) * alignments[ops.programs[where[at_cfa]]]
    saved[at_cfa] |= offsets << 8
    at_slot = np.flatnonzero(kinds == op.EXPRESSION)
    saved[at_slot] = expressions.slots(_blocks(code, operands[at_slot]))
    return registers, where, saved


def _blocks(code: NDArray[np.uint8], places: NDArray[np.int64]) -> list[bytes]:
    """Return the blocks whose sizes are at some places, cut to what can still be told from a known one."""
    sizes = unsigned_numbers(code, places)
    ends = sizes.limits + np.minimum(sizes.values, _BLOCK_LIMIT)
    raw = code.tobytes() if len(places) else b""
    return [raw[start:end] for start, end in zip(sizes.limits.tolist(), ends.tolist(), strict=True)]


def _places(ops: Operations, *kinds: int) -> NDArray[np.int64]:
    """Return the indices of the instructions of some kinds."""
    return np.flatnonzero(_is_one_of(ops.kinds, *kinds))


def _is_one_of(values: NDArray[np.uint8] | NDArray[np.int64], *wanted: int) -> NDArray[np.bool_]:
    found = np.zeros(len(values), np.bool_)
    for value in wanted:
        found |= values == value
    return found


def _bases() -> NDArray[np.int64]:
    """Return the cfa base for each register, and for those beyond."""
    bases = [BY_REGISTER | number for number in range(_REGISTERS)]
    bases[RSP], bases[RBP] = int(Cfa.RSP), int(Cfa.RBP)
    return np.array([*bases, Cfa.UNSUPPORTED], np.int64)


def _saved() -> NDArray[np.int8]:
    """Return for each kind of instruction what becomes of the register that it names; -1 if it names none."""
    saved = np.full(256, -1, np.int8)
    saved[[op.OFFSET, op.OFFSET_EXTENDED, op.OFFSET_EXTENDED_SF]] = Saved.AT_CFA
    saved[[op.RESTORE, op.RESTORE_EXTENDED]] = Saved.DEFAULT  # that of the CIE, filled in later
    saved[[op.REGISTER, op.VAL_OFFSET, op.VAL_OFFSET_SF, op.VAL_EXPRESSION]] = Saved.UNSUPPORTED
    saved[op.EXPRESSION] = Saved.UNSUPPORTED
    saved[op.UNDEFINED] = Saved.UNDEFINED
    saved[op.SAME_VALUE] = Saved.SAME
    return saved


_BASES = _bases()
_SAVED = _saved()
