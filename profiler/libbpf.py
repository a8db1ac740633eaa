"""The binding of libbpf.so.1: objects, programs, maps. The only module that calls it.

The library is loaded by soname: finding it by name would run other programs. Every foreign failure
becomes LibbpfError here, with libbpf's own words.

Source: libbpf's bpf/libbpf.h and bpf/bpf.h (version 1.0 and later); bpf(2).
"""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pyprof.profiler.errors import ProfilerError

SONAME = "libbpf.so.1"
NO_LIBRARY = f"{SONAME} is not installed; on Debian: apt-get install libbpf1"
LOG_BYTES = 1 << 16
WARN = 0  # enum libbpf_print_level
BATCH_ITEMS = 2048

_LOG: list[str] = []  # what libbpf has printed since the last error; the library prints for the process
_LIBC = ctypes.CDLL(None)


def _note(level: int, form: bytes, arguments: int) -> int:
    if level == WARN:
        text = ctypes.create_string_buffer(LOG_BYTES)
        _LIBC.vsnprintf(text, ctypes.c_size_t(LOG_BYTES), form, ctypes.c_void_p(arguments))
        _LOG.append(text.value.decode(errors="replace"))
    return 0


_NOTE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_note)
_RING_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class LibbpfError(ProfilerError):
    """A call of libbpf failed. `errno` is positive; `detail` holds what libbpf printed meanwhile."""

    def __init__(self, message: str, number: int, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.errno = number


class MapItem(NamedTuple):
    """One entry of a BPF map, as the kernel laid it out."""

    key: bytes
    value: bytes


class Library:
    """libbpf.so.1, loaded.

    Raises: LibbpfError when the library is not installed.
    """

    def __init__(self, *, soname: str = SONAME) -> None:
        try:
            self.calls = ctypes.CDLL(soname, use_errno=True)
        except OSError as error:
            raise LibbpfError(NO_LIBRARY, errno.ENOENT, str(error)) from error
        self._declare()
        self.calls.libbpf_set_print(_NOTE)

    @property
    def version(self) -> str:
        """Return the library's version: "1.1"."""
        return f"{self.calls.libbpf_major_version()}.{self.calls.libbpf_minor_version()}"

    @property
    def possible_cpus(self) -> int:
        """Return how many values a per-CPU map holds for each key."""
        return int(self.calls.libbpf_num_possible_cpus())

    def error(self, what: str, number: int) -> LibbpfError:
        """Return the error for a failed call, with the log since the last one as its detail."""
        detail, _LOG[:] = "".join(_LOG), []
        words = ctypes.create_string_buffer(256)
        self.calls.libbpf_strerror(number, words, ctypes.sizeof(words))  # knows its own numbers too
        return LibbpfError(f"{what}: {words.value.decode(errors='replace')}", abs(number), detail)

    def _declare(self) -> None:
        pointers = {
            "bpf_object__open_file": (ctypes.c_char_p, ctypes.c_void_p),
            "bpf_object__find_map_by_name": (ctypes.c_void_p, ctypes.c_char_p),
            "bpf_object__find_program_by_name": (ctypes.c_void_p, ctypes.c_char_p),
            "bpf_map__initial_value": (ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)),
            "bpf_program__attach": (ctypes.c_void_p,),
            "bpf_program__attach_perf_event": (ctypes.c_void_p, ctypes.c_int),
            "ring_buffer__new": (ctypes.c_int, _RING_CALLBACK, ctypes.c_void_p, ctypes.c_void_p),
        }
        integers = {
            "bpf_object__load": (ctypes.c_void_p,),
            "bpf_map__set_max_entries": (ctypes.c_void_p, ctypes.c_uint32),
            "bpf_map__fd": (ctypes.c_void_p,),
            "bpf_map__key_size": (ctypes.c_void_p,),
            "bpf_map__value_size": (ctypes.c_void_p,),
            "bpf_program__set_autoload": (ctypes.c_void_p, ctypes.c_bool),
            "bpf_link__destroy": (ctypes.c_void_p,),
            "libbpf_strerror": (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t),
            "bpf_map_lookup_elem": (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p),
            "bpf_map_update_elem": (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64),
            "bpf_map_lookup_batch": (ctypes.c_int, *[ctypes.c_void_p] * 6),
            "bpf_map_delete_elem": (ctypes.c_int, ctypes.c_char_p),
            "ring_buffer__consume": (ctypes.c_void_p,),
            "ring_buffer__epoll_fd": (ctypes.c_void_p,),
        }
        for name, arguments in pointers.items():
            getattr(self.calls, name).argtypes = arguments
            getattr(self.calls, name).restype = ctypes.c_void_p
        for name, arguments in integers.items():
            getattr(self.calls, name).argtypes = arguments
        for name in ("bpf_object__close", "ring_buffer__free"):
            getattr(self.calls, name).argtypes = (ctypes.c_void_p,)
            getattr(self.calls, name).restype = None


class Map:
    """A map of a loaded object. Keys and values are bytes; sizes are checked where it is made."""

    def __init__(self, library: Library, handle: int, name: str) -> None:
        self._library = library
        self._handle = handle
        self.name = name
        self.key_bytes = int(library.calls.bpf_map__key_size(handle))
        self.value_bytes = int(library.calls.bpf_map__value_size(handle))

    @property
    def fd(self) -> int:
        return int(self._library.calls.bpf_map__fd(self._handle))

    def update(self, key: bytes, value: bytes) -> None:
        """Set one entry. Raises: LibbpfError."""
        self._check_sizes(key, value)
        result = self._library.calls.bpf_map_update_elem(self.fd, key, value, 0)
        if result < 0:
            raise self._library.error(f"cannot write BPF map {self.name}", result)

    def delete(self, key: bytes) -> None:
        """Remove one entry; one that is not there is no error."""
        self._library.calls.bpf_map_delete_elem(self.fd, key)

    def per_cpu_values(self, key: bytes) -> list[bytes]:
        """Return the value of each possible CPU, in CPU order. Raises: LibbpfError."""
        self._check_sizes(key, bytes(self.value_bytes))
        cpus, value_bytes = self._library.possible_cpus, self.value_bytes
        stride = (value_bytes + 7) // 8 * 8
        values = ctypes.create_string_buffer(stride * cpus)
        result = self._library.calls.bpf_map_lookup_elem(self.fd, key, values)
        if result < 0:
            raise self._library.error(f"cannot read BPF map {self.name}", result)
        return [values.raw[cpu * stride : cpu * stride + value_bytes] for cpu in range(cpus)]

    def items(self) -> Iterator[MapItem]:
        """Yield every entry of a hash map, in no order. Nothing else may change the map meanwhile.

        Raises: LibbpfError.
        """
        capacity = BATCH_ITEMS
        position: ctypes.c_uint32 | None = None
        while True:
            count = ctypes.c_uint32(capacity)
            keys = ctypes.create_string_buffer(self.key_bytes * capacity)
            values = ctypes.create_string_buffer(self.value_bytes * capacity)
            following = ctypes.c_uint32()
            result = self._library.calls.bpf_map_lookup_batch(
                self.fd,
                ctypes.byref(position) if position else None,
                ctypes.byref(following),
                keys,
                values,
                ctypes.byref(count),
                None,
            )
            if result == -errno.ENOSPC:  # a bucket holds more entries than the batch
                capacity *= 2
                continue
            if result < 0 and result != -errno.ENOENT:
                raise self._library.error(f"cannot read BPF map {self.name}", result)
            yield from self._entries(memoryview(keys), memoryview(values), count.value)
            if result == -errno.ENOENT:
                return
            position = following

    def _entries(self, keys: memoryview, values: memoryview, count: int) -> Iterator[MapItem]:
        for index in range(count):
            key_at, value_at = index * self.key_bytes, index * self.value_bytes
            yield MapItem(
                bytes(keys[key_at : key_at + self.key_bytes]),
                bytes(values[value_at : value_at + self.value_bytes]),
            )

    def _check_sizes(self, key: bytes, value: bytes) -> None:
        if len(key) != self.key_bytes or len(value) != self.value_bytes:
            raise LibbpfError(
                f"BPF map {self.name} takes {self.key_bytes} + {self.value_bytes} bytes, "
                f"got {len(key)} + {len(value)}; the BPF objects are of another version: reinstall pyprof",
                errno.EINVAL,
            )


class RingBuffer:
    """A BPF ring buffer, read by this process. Raises: LibbpfError from the constructor."""

    def __init__(self, library: Library, ring: Map) -> None:
        self._library = library
        self._take: Callable[[bytes], object] = len
        self._callback = _RING_CALLBACK(self._on_record)  # the library keeps no reference
        self._handle = library.calls.ring_buffer__new(ring.fd, self._callback, None, None)
        if not self._handle:
            raise library.error(f"cannot read BPF ring {ring.name}", ctypes.get_errno())

    def fileno(self) -> int:
        """Return the descriptor that is readable when records wait."""
        return int(self._library.calls.ring_buffer__epoll_fd(self._handle))

    def consume(self, take: Callable[[bytes], object]) -> None:
        """Call `take` with each record that waits, oldest first."""
        self._take = take
        self._library.calls.ring_buffer__consume(self._handle)

    def close(self) -> None:
        if self._handle:
            self._library.calls.ring_buffer__free(self._handle)
            self._handle = None

    def _on_record(self, context: int, address: int, size_bytes: int) -> int:
        self._take(ctypes.string_at(address, size_bytes))
        return 0


class BpfObject:
    """A BPF object file: opened, set up, loaded, attached, closed in that order.

    Raises: LibbpfError from every method.
    """

    def __init__(self, library: Library, path: str) -> None:
        self._library = library
        self._links: list[int] = []
        handle = library.calls.bpf_object__open_file(os.fsencode(path), None)
        if not handle:
            raise library.error(f"cannot open BPF object {path}", ctypes.get_errno())
        self._handle: int | None = handle

    def set_rodata(self, image: bytes) -> None:
        """Set the object's `const volatile` data; before load."""
        size = ctypes.c_size_t()
        address = self._library.calls.bpf_map__initial_value(self._map(".rodata"), ctypes.byref(size))
        if not address or size.value != len(image):
            raise LibbpfError(
                f"the BPF object takes {size.value} bytes of settings, not {len(image)}; reinstall pyprof",
                errno.EINVAL,
            )
        ctypes.memmove(address, image, len(image))

    def set_max_entries(self, map_name: str, entries: int) -> None:
        result = self._library.calls.bpf_map__set_max_entries(self._map(map_name), entries)
        if result < 0:
            raise self._library.error(f"cannot size BPF map {map_name} for {entries} entries", result)

    def leave_out(self, program_name: str) -> None:
        """Do not load this program; before load."""
        self._library.calls.bpf_program__set_autoload(self._program(program_name), False)

    def load(self) -> None:
        result = self._library.calls.bpf_object__load(self._handle)
        if result < 0:
            raise self._library.error("the kernel refused a BPF program or map", result)

    def map(self, name: str) -> Map:
        return Map(self._library, self._map(name), name)

    def ring(self, name: str) -> RingBuffer:
        return RingBuffer(self._library, self.map(name))

    def attach(self, program_name: str) -> None:
        """Attach a program to the hook that its section names."""
        link = self._library.calls.bpf_program__attach(self._program(program_name))
        self._keep(link, f"cannot attach BPF program {program_name}")

    def attach_perf_event(self, program_name: str, event_fd: int) -> int:
        """Attach a program to an open perf event, which libbpf enables and from here on owns.

        Return the link, for `detach`.
        """
        link = self._library.calls.bpf_program__attach_perf_event(self._program(program_name), event_fd)
        return self._keep(link, f"cannot attach BPF program {program_name} to a perf event")

    def detach(self, link: int) -> None:
        """Detach one program from one perf event and close the event."""
        self._links.remove(link)
        self._library.calls.bpf_link__destroy(link)

    def detach_all(self) -> None:
        """Detach every program; maps stay readable."""
        while self._links:
            self.detach(self._links[-1])

    def close(self) -> None:
        self.detach_all()
        if self._handle:
            self._library.calls.bpf_object__close(self._handle)
            self._handle = None

    def _keep(self, link: int | None, what: str) -> int:
        if not link:
            raise self._library.error(what, ctypes.get_errno())
        self._links.append(link)
        return link

    def _map(self, name: str) -> int:
        return self._found(self._library.calls.bpf_object__find_map_by_name, "map", name)

    def _program(self, name: str) -> int:
        return self._found(self._library.calls.bpf_object__find_program_by_name, "program", name)

    def _found(self, find: "ctypes._NamedFuncPointer", kind: str, name: str) -> int:
        handle = find(self._handle, name.encode())
        if not handle:
            raise LibbpfError(f"the BPF object has no {kind} {name}; reinstall pyprof", errno.ENOENT)
        return int(handle)
