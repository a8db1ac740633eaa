"""Profile to pprof: gzip'd profile.proto, the form in which pyprof saves a profile.

How the parts of a Profile are kept; pprof_reader.py has the way back:

- `sample_type` is samples/count, with the event cpu-clock also cpu/nanoseconds, which viewers show first.
- Stacks are leaf first. An INLINED frame whose address, mapping and module are those of the frame before it
  is a line of the same location. A name that only repeats the address, `[libc.so.6+0x1234]`, is left out,
  so that viewers may look for a better one.
- The labels of a sample are pid and tid (numbers) and comm; unknown ones are left out.
- Frame kinds and modules: pprof_origin.py. Provenance, losses and quality: pprof_header.py.

What does not survive: frames that no stack uses and the order of frames (first use, root first, decides);
equal frames and equal stacks become one; text becomes printable; a nameless frame is named by its address;
a kernel frame without mapping and module moves into `[kernel.kallsyms]`, should the profile hold that one.

Source: profile.proto; https://github.com/google/pprof/blob/main/doc/README.md
"""

import zlib

from google.protobuf.message import EncodeError

from pyprof.profiler.profile import Profile
from pyprof.render import profile_pb2
from pyprof.render.errors import RenderError
from pyprof.render.pprof_header import CPU_TIME, header_lines, period_type, sample_time_ns, value_type
from pyprof.render.pprof_write_tables import WriteTables

MAX_VALUE = (1 << 63) - 1  # of a number in the format

_GZIP_LEVEL = 4  # 6 takes half as long again for 1 % less
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's own gzip header: no time and no name in it


def encode_pprof(profile: Profile) -> bytes:
    """Return the pprof file of a profile; the same profile gives the same bytes.

    Raises: RenderError when an index or a number is outside of what a profile or the format can hold.
    """
    try:
        tables = WriteTables(profile)
        values = _location_values(tables, profile)
        _add_samples(tables, profile, values)
        _add_header(tables, profile)
        tables.finish()
        data = tables.message.SerializeToString(deterministic=True)
    except (ValueError, EncodeError) as error:  # a number of more than 64 bits
        text = " ".join(str(error).split())
        raise RenderError(f"cannot write pprof: {text}; save the profile as .folded instead") from error
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return packer.compress(data) + packer.flush()


_Labels = tuple[int, int, int]  # comm in the string table, pid, tid


def _location_values(tables: WriteTables, profile: Profile) -> dict[tuple[tuple[int, ...], _Labels], int]:
    """Return the value of each distinct stack of locations (leaf first) and labels."""
    values: dict[tuple[tuple[int, ...], _Labels], int] = {}
    for number, sample in enumerate(profile.samples):
        if sample.value < 0:
            raise RenderError(
                f"cannot write pprof: sample {number} has the value {sample.value}; pprof has counts only"
            )
        key = (tables.location_ids(sample.stack), (tables.string(sample.comm), sample.pid, sample.tid))
        values[key] = values.get(key, 0) + sample.value
    return values


def _add_samples(
    tables: WriteTables, profile: Profile, values: dict[tuple[tuple[int, ...], _Labels], int]
) -> None:
    """Write the value types, the default among them, and the samples."""
    types = [value_type(profile.unit, profile.provenance.mode)]
    period_ns = sample_time_ns(profile)
    if period_ns and sum(values.values()) * period_ns <= MAX_VALUE:
        types.append(CPU_TIME)
    message = tables.message
    message.sample_type.extend(tables.value_type(kind) for kind in types)
    message.default_sample_type = tables.string(types[-1].type)
    labels: dict[_Labels, list[profile_pb2.Label]] = {}
    for (location_ids, who), value in values.items():
        if who not in labels:
            labels[who] = _labels(tables, who)
        both = (value, value * period_ns) if len(types) > 1 else (value,)
        message.sample.add(location_id=location_ids, value=both, label=labels[who])


def _labels(tables: WriteTables, who: _Labels) -> list[profile_pb2.Label]:
    comm, pid, tid = who
    labels = [
        profile_pb2.Label(key=tables.string(key), num=number)
        for key, number in (("pid", pid), ("tid", tid))
        if number
    ]
    if comm:
        labels.append(profile_pb2.Label(key=tables.string("comm"), str=comm))
    return labels


def _add_header(tables: WriteTables, profile: Profile) -> None:
    """Write times, period and comments."""
    message, provenance = tables.message, profile.provenance
    message.time_nanos = max(provenance.started_unix_ns, 0)
    message.duration_nanos = max(provenance.duration_ns, 0)
    message.period = max(provenance.period, 0)
    if kind := period_type(provenance.event):
        message.period_type.CopyFrom(tables.value_type(kind))
    message.comment.extend(tables.string(line) for line in header_lines(profile))
