"""The source of the project, parsed: its files, its modules and what they import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE_FILES = sorted(
    [*(ROOT / "kangaroo_kernels").rglob("*.py"), *(ROOT / "python").rglob("*.py")]
)
PYTHON_FILES = sorted(
    [*PACKAGE_FILES, *ROOT.glob("*.py"), *(ROOT / "tests").rglob("*.py")]
    + [*(ROOT / "benchmarks").rglob("*.py")]
)
CPP_FILES = sorted(
    f for f in (ROOT / "csrc").rglob("*") if f.suffix in (".h", ".cpp", ".cu", ".cuh")
)


def name_of(path: Path) -> str:
    """The file's path in the repository."""
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts[1:] if parts[0] == "python" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {path: ast.parse(path.read_text(), str(path)) for path in PYTHON_FILES}
PROJECT = {module_name(path): path for path in PACKAGE_FILES}


def run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from [other, *run_time_nodes(other)]
        else:
            yield from [node, *run_time_nodes(node)]


def imports(path: Path) -> set[str]:
    """Modules that the file imports, at the top or inside functions."""
    found: set[str] = set()
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in run_time_nodes(TREES[path]):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{module}.{alias.name}"
                found.add(full if full in PROJECT else module)
    return found


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
