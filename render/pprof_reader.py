"""Pprof to Profile: reads what pprof.py writes, and the files of Go, perf_to_profile and others.

A file without pyprof's comments is foreign. Of a foreign file

- the values are those of `default_sample_type`, else the last ones, as in Go's tool; samples without such a
  value are left out, and stacks that differ only in labels pyprof has no field for become one,
- mappings and addresses are moved so that a mapping starts at its file offset (see `Mapping`),
- `drop_frames` and `keep_frames` are not obeyed: they are regular expressions from elsewhere.

Nothing in a file is trusted: size, indices and numbers are checked, text is made printable.

Source: profile.proto; https://github.com/google/pprof/blob/main/profile/profile.go for what is valid.
"""

import zlib

from google.protobuf.message import DecodeError

from pyprof.profiler.profile import Profile, ProfileSample
from pyprof.render import profile_pb2
from pyprof.render.errors import RenderError
from pyprof.render.pprof_header import Header, ValueType, parsed_header, unit_of, value_type
from pyprof.render.pprof_read_tables import ReadTables, Strings, refuse

MAX_FILE_BYTES = 256 << 20
MAX_MESSAGE_BYTES = 512 << 20  # unpacked
MAX_STACK_ENTRIES = 1 << 26  # of all samples together: inlined functions multiply what a file holds

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_CHUNK_BYTES = 1 << 20


def decode_pprof(
    data: bytes, *, max_file_bytes: int = MAX_FILE_BYTES, max_message_bytes: int = MAX_MESSAGE_BYTES
) -> Profile:
    """Return the Profile in a pprof file, in gzip or plain.

    Raises: RenderError when the file is too large, damaged or not pprof.
    """
    if len(data) > max_file_bytes:
        refuse(f"the file has {len(data)} bytes, more than {max_file_bytes}", "make a shorter capture")
    message = profile_pb2.Profile()
    try:
        message.ParseFromString(_unpacked(data, max_message_bytes))
    except DecodeError:
        refuse("the content is not a profile.proto message", "check that the file is pprof")
    if not message.sample_type:
        refuse("there is no sample type in it", "check that the file is pprof and not empty")
    return _profile(message)


def _unpacked(data: bytes, max_bytes: int) -> bytes:
    """Return the message in a file of one or more gzip members, or the file itself."""
    if not data.startswith(_GZIP_MAGIC):
        return data
    chunks: list[bytes] = []
    size_bytes = 0
    while data.startswith(_GZIP_MAGIC):
        unpacker = zlib.decompressobj(_GZIP_WINDOW)
        while not unpacker.eof:
            try:
                chunk = unpacker.decompress(data, _CHUNK_BYTES)
            except zlib.error as error:
                raise RenderError(
                    f"cannot read pprof: {error}; the file is damaged, write it again"
                ) from error
            data = unpacker.unconsumed_tail
            if not chunk and not data and not unpacker.eof:
                refuse("the gzip data ends early", "the file was cut short, copy it again")
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                refuse(f"it unpacks to more than {max_bytes} bytes", "make a shorter capture")
            chunks.append(chunk)
        data = unpacker.unused_data
    return b"".join(chunks)


def _profile(message: profile_pb2.Profile) -> Profile:
    strings = Strings(message.string_table)
    header = parsed_header(strings.text(index) for index in message.comment)
    value_index, unit = _selected_value(message, strings, header)
    tables = ReadTables(message, strings, foreign=header.unit is None)
    samples = _samples(message, strings, tables, value_index)
    event = strings.text(message.period_type.type)
    return Profile(
        unit=unit,
        samples=samples,
        frames=tables.frames,
        mappings=tables.mappings,
        provenance=header.provenance(
            event=event,
            period=max(message.period, 0),
            started_unix_ns=max(message.time_nanos, 0),
            duration_ns=max(message.duration_nanos, 0),
        ),
        quality=header.quality(),
    )


def _selected_value(message: profile_pb2.Profile, strings: Strings, header: Header) -> tuple[int, str]:
    """Return which of the values of a sample to take, and its unit."""
    types = [ValueType(strings.text(kind.type), strings.text(kind.unit)) for kind in message.sample_type]
    if header.unit is not None:
        own = value_type(header.unit, header.texts.get("mode", ""))
        if own in types:
            return types.index(own), header.unit
    default = strings.text(message.default_sample_type)
    names = [kind.type for kind in types]
    selected = names.index(default) if default in names else len(types) - 1
    return selected, unit_of(types[selected])


def _samples(
    message: profile_pb2.Profile, strings: Strings, tables: ReadTables, value_index: int
) -> tuple[ProfileSample, ...]:
    """Return the samples in the order of the file, equal stacks added up."""
    totals: dict[ProfileSample, int] = {}  # a sample without its value: the value
    count = len(message.sample_type)
    stack_entries = 0
    for number, sample in enumerate(message.sample):
        if len(sample.value) != count:
            refuse(f"sample {number} has {len(sample.value)} values for {count} sample types")
        value = sample.value[value_index]
        if value < 0:
            refuse(f"sample {number} has the value {value}", "a difference of profiles cannot be drawn")
        if value == 0 and tables.foreign:
            continue
        stack = tables.stack(sample.location_id, number)
        stack_entries += len(stack)
        if stack_entries > MAX_STACK_ENTRIES:
            refuse(f"its stacks have more than {MAX_STACK_ENTRIES} frames", "make a shorter capture")
        key = _labelled(sample, stack, strings)
        totals[key] = totals.get(key, 0) + value
    return tuple(key._replace(value=value) for key, value in totals.items())


def _labelled(sample: profile_pb2.Sample, stack: tuple[int, ...], strings: Strings) -> ProfileSample:
    comm, pid, tid = "", 0, 0
    for label in sample.label:
        key = strings.text(label.key)
        if key == "pid":
            pid = label.num
        elif key == "tid":
            tid = label.num
        elif key == "comm":
            comm = strings.text(label.str)
    return ProfileSample(stack, 0, comm, pid, tid)
