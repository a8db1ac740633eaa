"""The tables of a pprof file being read: what an index or an id stands for, checked when it is used."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn, Protocol, TypeVar

from pyprof.profiler.profile import Mapping
from pyprof.render import profile_pb2
from pyprof.render.errors import RenderError
from pyprof.render.pprof_origin import Origin, implied_origin, is_made, unescaped, unknown_name
from pyprof.symbolize.frame import NO_MAPPING, Frame, FrameKind
from pyprof.symbolize.text import printable

_ADDRESS_LIMIT = 1 << 64


class _Numbered(Protocol):
    @property
    def id(self) -> int: ...


_Message = TypeVar("_Message", bound=_Numbered)


class _Home(NamedTuple):
    """A mapping of the file."""

    mapping: Mapping | None  # as the Profile has it
    number: int = NO_MAPPING  # index in the Profile
    start: int = 0  # addresses of the file from here ...
    limit: int = -1  # ... to here are moved
    shift: int = 0  # by so much


def refuse(what: str, next_step: str = "the file is damaged, write it again") -> NoReturn:
    """Raises: RenderError, always."""
    raise RenderError(f"cannot read pprof: {what}; {next_step}")


class Strings:
    """The string table, made printable where it is used."""

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table
        self._texts: dict[int, str] = {0: ""}

    def text(self, index: int) -> str:
        """Return an entry. Raises: RenderError when there is none."""
        text = self._texts.get(index)
        if text is None:
            if not 0 <= index < len(self._table):
                refuse(f"string {index} is outside of the string table of {len(self._table)}")
            text = self._texts[index] = printable(self._table[index])
        return text


class ReadTables:
    """Frames and mappings of a Profile, which fill as stacks are read."""

    def __init__(self, message: profile_pb2.Profile, strings: Strings, *, foreign: bool) -> None:
        """Raises: RenderError when ids repeat."""
        self.foreign = foreign
        self._strings = strings
        self._functions = _by_id(message.function, "function")
        self._locations = _by_id(message.location, "location")
        self._mappings: list[Mapping] = []
        self._moved: dict[Mapping, int] = {}  # of a foreign file: the index of a mapping
        homes = _by_id(message.mapping, "mapping")
        self._homes = {number: self._home(mapping) for number, mapping in homes.items()}
        self._homes[0] = _Home(None)
        self._frames: dict[Frame, int] = {}
        self._indices: dict[int, tuple[int, ...]] = {}  # location id: its frames, root first

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Return the frames of the stacks so far, in the order of their first use."""
        return tuple(self._frames)

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        """Return the mappings, in the order of the file."""
        return tuple(self._mappings)

    def stack(self, location_ids: Sequence[int], number: int) -> tuple[int, ...]:
        """Return the frames, root first, of the locations, leaf first, of the sample with that number.

        Raises: RenderError when the file lacks one.
        """
        stack: list[int] = []
        for location_id in location_ids[::-1]:
            indices = self._indices.get(location_id)
            if indices is None:
                if location_id not in self._locations:
                    refuse(f"sample {number} names location {location_id}, which is not there")
                indices = self._indices[location_id] = self._location(self._locations[location_id])
            stack += indices
        return tuple(stack)

    def _home(self, message: profile_pb2.Mapping) -> _Home:
        start, limit, file_offset = message.memory_start, message.memory_limit, message.file_offset
        path, build_id = self._strings.text(message.filename), self._strings.text(message.build_id)
        mapping = Mapping(start, limit, file_offset, path, build_id)
        if is_made(mapping):
            return _Home(mapping)
        if not self.foreign:
            self._mappings.append(mapping)
            return _Home(mapping, len(self._mappings) - 1)
        shift = 0
        is_file = implied_origin(mapping, "", 0).kind is FrameKind.USER
        if is_file and start < limit and file_offset + limit - start < _ADDRESS_LIMIT:
            shift = file_offset - start
            mapping = mapping._replace(start=file_offset, limit=limit + shift)
        number = self._moved.setdefault(mapping, len(self._moved))
        if number == len(self._mappings):
            self._mappings.append(mapping)
        return _Home(mapping, number, start, limit, shift)

    def _location(self, location: profile_pb2.Location) -> tuple[int, ...]:
        """Return the frames of a location, root first."""
        home = self._homes.get(location.mapping_id)
        if home is None:
            refuse(f"location {location.id} names mapping {location.mapping_id}, which is not there")
        address: int = location.address
        if home.start <= address <= home.limit:
            address += home.shift
        if not location.line:
            kind, module = implied_origin(home.mapping, "", address)
            name = unknown_name(home.mapping, address)
            return (self._index(Frame(name, kind, module, address, home.number)),)
        *inlined, base = location.line
        name, file, origin = self._function(base.function_id, home.mapping, address)
        frame = Frame(name, origin.kind, origin.module, address, home.number, max(base.line, 0), file)
        indices = [self._index(frame)]
        for line in reversed(inlined):
            name, file, _ = self._function(line.function_id, home.mapping, address)
            frame = Frame(
                name, FrameKind.INLINED, origin.module, address, home.number, max(line.line, 0), file
            )
            indices.append(self._index(frame))
        return tuple(indices)

    def _function(self, function_id: int, mapping: Mapping | None, address: int) -> tuple[str, str, Origin]:
        """Return the name, the source file and the origin of a function at an address; 0 is no function."""
        if not function_id:
            return unknown_name(mapping, address), "", implied_origin(mapping, "", address)
        if function_id not in self._functions:
            refuse(f"a location names function {function_id}, which is not there")
        function = self._functions[function_id]
        system_name = self._strings.text(function.system_name)
        name = self._strings.text(function.name) or system_name
        origin = unescaped(system_name) or implied_origin(mapping, name, address)
        return name or unknown_name(mapping, address), self._strings.text(function.filename), origin

    def _index(self, frame: Frame) -> int:
        return self._frames.setdefault(frame, len(self._frames))


def _by_id(messages: Iterable[_Message], what: str) -> dict[int, _Message]:
    found: dict[int, _Message] = {}
    for message in messages:
        if message.id in found or message.id == 0:
            refuse(f"there are two {what}s {message.id}" if message.id else f"a {what} has the number 0")
        found[message.id] = message
    return found
