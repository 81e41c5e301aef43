"""The rules of the house (docs/DESIGN.md). What may break one stands in EXCEPTIONS, with why."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from kangaroo_kernels import KernelSet
from kangaroo_kernels.kernel_set import IMPLS, MODULES, Backend
from tests.source_tree import (
    CPP_FILES,
    PACKAGE_FILES,
    PROJECT,
    PYTHON_FILES,
    ROOT,
    TREES,
    calls,
    functions,
    imports,
    module_name,
    name_of,
)

IMPLEMENTATIONS = tuple(MODULES.values())

# rule -> file -> why it may break the rule
EXCEPTIONS: dict[str, dict[str, str]] = {
    "pickle": {
        "python/kangaroo/models/published.py": "names the error of torch.load; loads nothing"
    },
}

# Each layer may import itself and the layers above it in this list; the longest prefix counts.
LAYERS: list[set[str]] = [
    {"kangaroo_kernels"},
    {
        "kangaroo.config",
        "kangaroo.cache",
        "kangaroo.costs",
        "kangaroo.pages",
        "kangaroo.draft.tree",
    },
    {"kangaroo.models", "kangaroo.sampling", "kangaroo.engine.state", "kangaroo.engine.stopping"},
    {"kangaroo.draft"},
    {"kangaroo.engine"},
    {"kangaroo", "kangaroo.train", "kangaroo.evals", "kangaroo.zoo", "kangaroo.environment"},
    {
        "kangaroo.cli",
        "kangaroo.__main__",
        "kangaroo.reports",
        "kangaroo.terminal",
        "kangaroo.zoo.widen",
    },
]


def check(rule: str, files: Iterable[Path], faults: Callable[[Path], Iterable[object]]) -> None:
    """No file has faults but the rule's exceptions, and no exception is stale."""
    found = {name_of(f): [str(x) for x in faults(f)] for f in files}
    excepted = EXCEPTIONS.get(rule, {})
    bad = {name: what for name, what in found.items() if what and name not in excepted}
    assert not bad, "\n".join(f"{name}: {', '.join(what)}" for name, what in bad.items())
    stale = [name for name in excepted if not found.get(name)]
    assert not stale, f"no longer exceptions to {rule!r}: {stale}"


def layer_of(module: str) -> int | None:
    parts = re.sub(r"^kangaroo\.cli_\w+", "kangaroo.cli", module).split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix == "kangaroo" and module != "kangaroo":
            return None
        for number, layer in enumerate(LAYERS):
            if prefix in layer:
                return number
    return None


def test_imports_run_one_way() -> None:
    def faults(path: Path) -> Iterator[str]:
        own = layer_of(module_name(path))
        if own is None:
            yield "has no layer: add it to LAYERS"
            return
        for module in imports(path):
            if module.split(".")[0] in ("kangaroo", "kangaroo_kernels"):
                theirs = layer_of(module)
                if theirs is None or theirs > own:
                    yield f"imports {module} from a layer above"

    check("direction", PACKAGE_FILES, faults)


def test_imports_have_no_circles() -> None:
    """Importing a.b.c runs a and a.b first, unless the importer lies in them."""
    graph: dict[str, set[str]] = {}
    for module, path in PROJECT.items():
        graph[module] = set()
        for target in imports(path) & PROJECT.keys():
            parts = target.split(".")
            packages = {".".join(parts[:length]) for length in range(1, len(parts))}
            graph[module] |= {p for p in packages if not f"{module}.".startswith(f"{p}.")}
            graph[module].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' <- '.join(error.args[1])}")


def test_implementations_are_reached_through_the_table_alone() -> None:
    def faults(path: Path) -> Iterator[str]:
        for module in imports(path):
            parts = module.split(".")
            if len(parts) == 3 and parts[1] in IMPLS and parts[2] in IMPLEMENTATIONS:
                yield f"imports {module}"

    check("siblings", PACKAGE_FILES, faults)


def test_only_triton_files_import_triton() -> None:
    """In the package, so that everything else runs where Triton is not."""

    def faults(path: Path) -> Iterator[str]:
        if not path.name.startswith("triton_"):
            yield from (m for m in imports(path) if m.split(".")[0] == "triton")

    check("triton", PACKAGE_FILES, faults)


def test_kernels_divide_known_numbers_by_operators() -> None:
    """What tl.cdiv makes of them is no number in Triton 3.6, and static_range refuses it."""

    def faults(path: Path) -> Iterator[str]:
        yield from (name for name, _ in calls(TREES[path]) if name == "tl.cdiv")

    check("cdiv", [f for f in PACKAGE_FILES if f.name.startswith("triton_")], faults)


def test_the_core_knows_no_framework() -> None:
    include = re.compile(r'#\s*include\s*[<"]((?:torch|ATen|c10|pybind11)[/.]|Python\.h|pyconfig)')
    core = [f for f in CPP_FILES if f.relative_to(ROOT / "csrc").parts[0] != "bindings"]
    check("framework", core, lambda path: include.findall(path.read_text()))


def test_file_budgets() -> None:
    def faults(path: Path) -> Iterator[str]:
        limit = {"__init__.py": 40, "setup.py": 80, "CMakeLists.txt": 120}.get(path.name)
        limit = limit or (300 if path.suffix == ".py" else 400)
        if (lines := len(path.read_text().splitlines())) > limit:
            yield f"{lines} lines, at most {limit}"

    check("file length", [*PYTHON_FILES, *CPP_FILES, *ROOT.glob("CMakeLists.txt")], faults)


def test_function_budgets() -> None:
    def faults(path: Path) -> Iterator[str]:
        for function in functions(TREES[path]):
            kernel = any(
                ast.unparse(mark).startswith("triton.jit") for mark in function.decorator_list
            )
            # A kernel takes addresses and sizes, one a line: its body is what counts.
            first = function.body[0].lineno if kernel else function.lineno
            lines = (function.end_lineno or 0) - first + 1
            if lines > 50:
                yield f"{function.name} has {lines} lines, at most 50"
            positional = [*function.args.posonlyargs, *function.args.args]
            names = [arg.arg for arg in positional if arg.arg not in ("self", "cls")]
            if len(names) > 6 and not kernel:
                yield f"{function.name} has {len(names)} positional parameters, at most 6"

    check("functions", PYTHON_FILES, faults)


def test_prose_fits_the_screen() -> None:
    def faults(path: Path) -> Iterator[str]:
        prose = re.sub(r"(?ms)^```.*?^```$", "", path.read_text(encoding="utf-8"))
        yield from (
            line for line in prose.splitlines() if len(line) > 120 and not line.startswith("|")
        )

    check("prose", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], faults)


@pytest.mark.parametrize("op", [field.name for field in fields(KernelSet)])
def test_every_op_is_complete(op: str) -> None:
    assert Backend.REFERENCE in IMPLS[op]
    folder = ROOT / "kangaroo_kernels" / op
    needed = [folder / f"{MODULES[backend]}.py" for backend in IMPLS[op]] + [folder / "__init__.py"]
    needed.append(ROOT / "tests" / "kernels" / f"test_{op}.py")
    needed.append(ROOT / "benchmarks" / "kernels" / f"bench_{op}.py")
    missing = [name_of(path) for path in needed if not path.exists()]
    assert not missing, missing
    present = {path.stem for path in folder.glob("*.py")} & set(IMPLEMENTATIONS)
    assert present == {MODULES[backend] for backend in IMPLS[op]}, "IMPLS lacks an implementation"


def test_every_op_has_a_field_and_a_row() -> None:
    assert [field.name for field in fields(KernelSet)] == list(IMPLS)
    ops = {path.parent.name for path in (ROOT / "kangaroo_kernels").glob("*/reference.py")}
    assert ops == set(IMPLS)


def test_no_print() -> None:
    def faults(path: Path) -> Iterator[str]:
        if path != ROOT / "python/kangaroo/cli.py":
            yield from (
                f"line {call.lineno}" for name, call in calls(TREES[path]) if name == "print"
            )

    tests = [path for path in PYTHON_FILES if path.is_relative_to(ROOT / "tests")]
    check("print", [*PACKAGE_FILES, *tests], faults)


def test_no_environment_and_no_globals_below_the_cli() -> None:
    def faults(path: Path) -> Iterator[str]:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Global):
                yield f"line {node.lineno}: global"
            elif isinstance(node, ast.Attribute | ast.Name) and path.name != "cli.py":
                if ast.unparse(node) in ("os.environ", "os.getenv", "environ", "getenv"):
                    yield f"line {node.lineno}: reads the environment"

    check("environment", PACKAGE_FILES, faults)


def test_no_swallowed_errors() -> None:
    def faults(path: Path) -> Iterator[str]:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                yield f"line {node.lineno}: bare except"
        for name, call in calls(TREES[path]):
            for keyword in call.keywords:
                value = ast.unparse(keyword.value)
                if keyword.arg == "strict" and value == "False" and name != "zip":
                    yield f"line {call.lineno}: strict=False"

    check("errors", PYTHON_FILES, faults)


def test_nothing_that_is_loaded_can_run_code() -> None:
    def faults(path: Path) -> Iterator[str]:
        for name, call in calls(TREES[path]):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if name.endswith("torch.load") and keywords.get("weights_only") != "True":
                yield f"line {call.lineno}: torch.load without weights_only=True"
            if keywords.get("trust_remote_code", "False") != "False":
                yield f"line {call.lineno}: trust_remote_code"

    check("code", PACKAGE_FILES, faults)


def test_no_pickle() -> None:
    words = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    check("pickle", PACKAGE_FILES, lambda path: {m.split(".")[0] for m in imports(path)} & words)


def test_no_integer_is_called_idx() -> None:
    def faults(path: Path) -> set[str]:
        tree = TREES[path]
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        return {name for name in names if "idx" in name.split("_")}

    check("idx", PYTHON_FILES, faults)
    check("idx in C++", CPP_FILES, lambda f: set(re.findall(r"\b(?:\w+_)?idx\b", f.read_text())))


def test_docstrings() -> None:
    def documented(node: ast.stmt) -> bool:
        """Of a Protocol it is enough that its methods are."""
        if ast.get_docstring(node) or not isinstance(node, ast.ClassDef):
            return bool(ast.get_docstring(node))
        protocol = any(ast.unparse(base) == "Protocol" for base in node.bases)
        return protocol and all(ast.get_docstring(method) for method in functions(node))

    def faults(path: Path) -> Iterator[str]:
        if not ast.get_docstring(TREES[path]):
            yield "the module has no docstring"
        if path not in PACKAGE_FILES or path.stem in IMPLEMENTATIONS:
            return  # tests say it in their names, implementations in their contract
        for node in TREES[path].body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if not node.name.startswith("_") and not documented(node):
                    yield f"{node.name} has no docstring"

    check("docstrings", PYTHON_FILES, faults)
