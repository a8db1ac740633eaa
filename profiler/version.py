"""The versions that a bug report needs."""

import platform
from pathlib import Path

from pyprof.profiler.errors import ProfilerError

MANIFEST = Path(__file__).resolve().parent.parent / "bpf" / "manifest.json"


def pyprof_version() -> str:
    """Return the version of the installed package; "unknown" when it is not installed."""
    from importlib import metadata  # noqa: PLC0415 - slow to import, and a capture imports this module

    try:
        return metadata.version("pyprof")
    except metadata.PackageNotFoundError:
        return "unknown"


def version_text() -> str:
    """Return the versions of pyprof, Python, libbpf, the kernel and the compiler of the BPF objects."""
    import json  # noqa: PLC0415 - as above

    compiler = json.loads(MANIFEST.read_text())["compiler"] if MANIFEST.exists() else "unknown"
    return "\n".join(
        [
            f"pyprof {pyprof_version()}",
            f"Python {platform.python_version()}",
            f"libbpf {_libbpf_version()}",
            f"Linux {platform.release()} {platform.machine()}",
            f"BPF objects built by {compiler}",
        ]
    )


def _libbpf_version() -> str:
    from pyprof.profiler.libbpf import Library  # noqa: PLC0415 - loads a shared library

    try:
        return Library().version
    except ProfilerError as error:
        return f"not usable: {error}"
