"""The tables of a pprof file being written: strings, mappings, functions and locations, each thing once."""

from collections.abc import Iterable
from dataclasses import dataclass

from pyprof.profiler.profile import Mapping, Profile
from pyprof.render import profile_pb2
from pyprof.render.errors import RenderError
from pyprof.render.pprof_header import ValueType
from pyprof.render.pprof_origin import (
    KERNEL_PATH,
    Origin,
    escaped,
    implied_origin,
    is_made,
    made_mapping,
    unescaped,
    unknown_name,
)
from pyprof.symbolize.frame import NO_MAPPING, Frame, FrameKind
from pyprof.symbolize.text import NAME_LIMIT, printable

_MODULE_LIMIT = NAME_LIMIT - 64  # characters: leaves room for what is put around a module


class WriteTables:
    """A message whose tables fill as stacks ask for their locations; `finish` it at the end."""

    def __init__(self, profile: Profile) -> None:
        """Raises: RenderError when a frame names a mapping that the profile lacks."""
        self.message = profile_pb2.Profile(string_table=[b""])
        self._strings = {"": 0}
        self._indices: dict[str, int] = {}  # of texts that may not be printable
        self._made: dict[Mapping, int] = {}  # made mapping: its id
        self._functions: dict[tuple[int, int, int], int] = {}
        self._locations: dict[tuple[int, ...], int] = {}
        self._resolved: dict[int, _Resolved] = {}  # by mapping id
        self._runs: dict[tuple[int, ...], int] = {}
        self._single = _LocationOfFrame(self)

        self._mappings, self._renumbered = _kept_mappings(profile.mappings)
        paths = [mapping.path for mapping in self._mappings]
        self._kernel_mapping = paths.index(KERNEL_PATH) if KERNEL_PATH in paths else NO_MAPPING
        self._frames = [self._normal(number, frame) for number, frame in enumerate(profile.frames)]
        self._places = [(frame.address, frame.mapping, frame.module) for frame in self._frames]
        # A viewer drops a location without a function where others have one; where none has, Go's tool
        # looks for the names itself.
        self._named = {
            frame.mapping for frame in self._frames if not _is_unknown(frame, self._home(frame))
        } - {NO_MAPPING}
        self._inlined = {i for i, frame in enumerate(self._frames) if frame.kind is FrameKind.INLINED}
        for mapping in self._mappings:
            self._add_mapping(mapping)

    def string(self, text: str) -> int:
        """Return the index of a text in the string table, once it is printable."""
        index = self._indices.get(text)
        if index is None:
            clean = printable(text)
            index = self._strings.setdefault(clean, len(self._strings))
            if index == len(self.message.string_table):
                self.message.string_table.append(clean.encode())
            self._indices[text] = index
        return index

    def value_type(self, value: ValueType) -> profile_pb2.ValueType:
        """Return the message that says what a number counts."""
        return profile_pb2.ValueType(type=self.string(value.type), unit=self.string(value.unit))

    def location_ids(self, stack: tuple[int, ...]) -> tuple[int, ...]:
        """Return the locations, leaf first, of a stack of frames, root first.

        Raises: RenderError when the stack names a frame that the profile lacks.
        """
        location_of_frame = self._single.__getitem__
        ids: list[int] = []
        done = 0
        for start, limit in self._runs_in(stack):
            ids += map(location_of_frame, stack[done:start])
            run = stack[start:limit]
            ids.append(self._runs.get(run) or self.run_location(run))
            done = limit
        ids += map(location_of_frame, stack[done:])
        ids.reverse()
        return tuple(ids)

    def run_location(self, run: tuple[int, ...]) -> int:
        """Return the location of a frame and of those inlined into it, root first."""
        self._check(run)
        frames = [self._frames[index] for index in run]
        base = frames[0]
        home = self._home(base)
        lines: list[int] = []
        for frame in frames[:0:-1]:
            lines += (self._function(frame, frame.name), frame.line)
        system_name = _system_name(base, home, bare=not lines and base.mapping not in self._named)
        if system_name:
            lines += (self._function(base, system_name), base.line)
        mapping_id = self._mapping_id(base, home)
        self._say_resolved(mapping_id, frames, bool(lines))
        location_id = self._runs[run] = self._location((mapping_id, base.address, *lines))
        return location_id

    def finish(self) -> None:
        """Say of each mapping whether all its locations have names, files and lines."""
        for mapping in self.message.mapping:
            resolved = self._resolved.get(mapping.id)
            if resolved is not None:
                mapping.has_functions = resolved.functions
                mapping.has_filenames = resolved.files
                mapping.has_line_numbers = resolved.lines
                mapping.has_inline_frames = resolved.inlined

    def _check(self, indices: tuple[int, ...]) -> None:
        for index in (min(indices), max(indices)):
            if not 0 <= index < len(self._frames):
                raise RenderError(
                    f"cannot write pprof: a stack names frame {index} of {len(self._frames)}; this is a bug"
                )

    def _say_resolved(self, mapping_id: int, frames: list[Frame], named: bool) -> None:
        """Count in what one location of a mapping has."""
        resolved = self._resolved.get(mapping_id)
        if resolved is None:
            resolved = self._resolved[mapping_id] = _Resolved()
        resolved.functions &= named
        resolved.files &= bool(frames[0].file)
        resolved.lines &= bool(frames[0].line)
        resolved.inlined |= len(frames) > 1

    def _normal(self, number: int, frame: Frame) -> Frame:
        """Return the frame as it will be read back, but for the mappings that are made."""
        name, kind, module, address, mapping, line, file = frame
        if mapping != NO_MAPPING:
            if not 0 <= mapping < len(self._renumbered):
                raise RenderError(
                    f"cannot write pprof: frame {number} names mapping {mapping} of "
                    f"{len(self._renumbered)}; this is a bug"
                )
            mapping = self._renumbered[mapping]
        module = printable(module, _MODULE_LIMIT)
        if mapping == NO_MAPPING and kind is FrameKind.KERNEL and not module:
            mapping = self._kernel_mapping
        normal = Frame(printable(name), kind, module, address, mapping, max(line, 0), printable(file))
        return normal if name else normal._replace(name=unknown_name(self._home(normal), address))

    def _home(self, frame: Frame) -> Mapping | None:
        """Return the mapping, possibly a made one, that the file has for a frame."""
        if frame.mapping != NO_MAPPING:
            return self._mappings[frame.mapping]
        return made_mapping(frame.kind, frame.module)

    def _runs_in(self, stack: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return start and limit of each run of two and more frames that share a location."""
        if self._inlined.isdisjoint(stack):
            return []
        self._check(stack)
        inlined, places = self._inlined, self._places
        runs: list[tuple[int, int]] = []
        for at in [position for position, index in enumerate(stack) if index in inlined]:
            if at and places[stack[at]] == places[stack[at - 1]]:
                continues = runs and runs[-1][1] == at
                start = runs.pop()[0] if continues else at - 1
                runs.append((start, at + 1))
        return runs

    def _location(self, key: tuple[int, ...]) -> int:
        location_id = self._locations.get(key)
        if location_id is None:
            location_id = self._locations[key] = len(self._locations) + 1
            mapping_id, address, *lines = key
            location = self.message.location.add(id=location_id, mapping_id=mapping_id, address=address)
            for function_id, line in zip(lines[::2], lines[1::2], strict=True):
                location.line.add(function_id=function_id, line=line)
        return location_id

    def _function(self, frame: Frame, system_name: str) -> int:
        name = self.string(frame.name)
        system = name if system_name is frame.name else self.string(system_name)
        key = (name, system, self.string(frame.file))
        function_id = self._functions.get(key)
        if function_id is None:
            function_id = self._functions[key] = len(self._functions) + 1
            self.message.function.add(id=function_id, name=name, system_name=system, filename=key[2])
        return function_id

    def _mapping_id(self, frame: Frame, home: Mapping | None) -> int:
        if frame.mapping != NO_MAPPING:
            return frame.mapping + 1
        if home is None:
            return 0
        if home not in self._made:
            self._made[home] = self._add_mapping(home)
        return self._made[home]

    def _add_mapping(self, mapping: Mapping) -> int:
        mapping_id = len(self.message.mapping) + 1
        self.message.mapping.add(
            id=mapping_id,
            memory_start=mapping.start,
            memory_limit=mapping.limit,
            file_offset=mapping.file_offset,
            filename=self.string(mapping.path),
            build_id=self.string(mapping.build_id),
        )
        return mapping_id


class _LocationOfFrame(dict[int, int]):
    """The location of each frame that nothing is inlined into, made at its first use."""

    def __init__(self, tables: WriteTables) -> None:
        super().__init__()
        self._tables = tables

    def __missing__(self, index: int) -> int:
        location_id = self[index] = self._tables.run_location((index,))
        return location_id


@dataclass(slots=True)
class _Resolved:
    """What all locations of a mapping have."""

    functions: bool = True
    files: bool = True
    lines: bool = True
    inlined: bool = False  # one of them has inlined frames


def _kept_mappings(mappings: Iterable[Mapping]) -> tuple[list[Mapping], list[int]]:
    """Return the mappings to write, and the new index of each given one."""
    kept: list[Mapping] = []
    renumbered: list[int] = []
    for mapping in mappings:
        clean = mapping._replace(path=printable(mapping.path), build_id=printable(mapping.build_id))
        if is_made(clean):
            renumbered.append(NO_MAPPING)
        else:
            renumbered.append(len(kept))
            kept.append(clean)
    return kept, renumbered


def _system_name(base: Frame, home: Mapping | None, *, bare: bool) -> str:
    """Return the system name of a location's own function, "" when the location needs none.

    `bare`: the location has no other function, and no location of its mapping has a name.
    """
    origin = Origin(base.kind, base.module)
    is_bare = bare and not (base.line or base.file) and _is_unknown(base, home)
    if is_bare and origin == implied_origin(home, "", base.address):
        return ""
    plain = origin == implied_origin(home, base.name, base.address) and unescaped(base.name) is None
    return base.name if plain else escaped(origin)


def _is_unknown(frame: Frame, home: Mapping | None) -> bool:
    return frame.name.startswith("[") and frame.name == unknown_name(home, frame.address)
