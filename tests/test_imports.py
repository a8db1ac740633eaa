"""Who may import whom, and what must not be loaded before it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDERS = ("bpf", "profiler", "render", "symbolize")
MAY_IMPORT = {
    "bpf": set[str](),
    "symbolize": {"symbolize"},
    "render": {"render", "profiler.profile", "symbolize.frame", "symbolize.text"},  # values and text only
    "profiler": {"profiler", "symbolize", "bpf"},
    "profiler.cli": {"profiler", "symbolize", "render", "bpf"},
}
HEAVY = {"numpy", "elftools", "symbolic", "google.protobuf", "rich", "yaml", "bcc", "asyncio"}
HEAVY |= {"urllib.request", "multiprocessing", "http.client"}
LOADED = """
import sys
from pyprof.profiler.cli import exit_code
exit_code({arguments})
print(*sys.modules, file=sys.stderr)
"""


def imports(source: Path) -> Iterator[str]:
    """Yield the pyprof modules that a file imports, without the leading "pyprof."."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("pyprof.") for name in names if name.startswith("pyprof."))


def within(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(f"{allowed}.")


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_imports_only_its_rows(root: Path, folder: str) -> None:
    for source in sorted((root / folder).rglob("*.py")):
        row = "profiler.cli" if "cli" in source.parts else folder
        for name in imports(source):
            if source.name in {"__main__.py", "launch.py"} and name.startswith("profiler.cli"):
                continue
            assert any(within(name, allowed) for allowed in MAY_IMPORT[row]), f"{source} imports {name}"
            assert row == "profiler.cli" or not within(name, "profiler.cli"), (
                f"{source} imports the command line"
            )


@pytest.mark.parametrize("arguments", [["--help"], ["cpu", "--help"], ["cpu", "-p", "4194305", "1"]])
def test_nothing_heavy_is_loaded_before_the_events_are_attached(arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LOADED.format(arguments=arguments)], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(result.stderr.split())


@pytest.mark.parametrize("package", ["numpy", "elftools", "symbolic", "rich", "click"])
def test_each_library_stays_in_one_folder(root: Path, package: str) -> None:
    homes = set()
    for folder in FOLDERS:
        for source in (root / folder).rglob("*.py"):
            text = source.read_text()
            if f"import {package}" in text or f"from {package}" in text:
                homes.add("cli" if "cli" in source.parts else folder)
    assert len(homes) <= 1, f"{package} is imported in {sorted(homes)}"
