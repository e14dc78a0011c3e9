"""The shape of the package: imports go one way, only the command line prints, files and functions stay readable."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "translate"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
SOURCES = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}

# From the ground up. A module imports from its own floor and from those below.
FLOORS = (
    ("", "errors"),
    ("config",),
    ("durable", "bar"),
    ("run",),
    ("device",),
    ("models", "text"),
    ("decoding",),
    ("evaluation",),
    ("training",),
    ("report",),
    ("stages",),
    ("cli",),
    ("__main__",),
)
NEIGHBOURS = {"models": {"text", "run", "device", "durable", "bar"}, "text": {"models", "device"}, "errors": {""}}
"""What is not imported although its floor would allow it."""
HEAVY = {"matplotlib", "datasets", "pyarrow", "tensorboard"}
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 330, 60
EMPTY_WORDS = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "handlers", "core"}


def part(module: str) -> str:
    """The part of the house a module belongs to: translate.text.lines is text."""
    return module.split(".")[1] if "." in module else ""


def floor(name: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if name in names)


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of everything imported anywhere in a tree, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def own_imports(module: str) -> set[str]:
    return {name for name in imports(TREES[module]) if name.partition(".")[0] == "translate"} - {module}


def upward(part_of: str, imported: str) -> bool:
    """Whether an import goes up, or to a neighbour that is none of its business."""
    other = part(imported)
    return floor(other) > floor(part_of) or other in NEIGHBOURS.get(part_of, set())


def misdeeds(tree: ast.AST) -> Iterator[str]:
    """Calls and imports that have no place in the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last = name.rpartition(".")[2]
            if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.save"):
                yield name
            if (name.startswith("yaml.") and "load" in name) or last == "splitlines":
                yield name
            if any(keyword.arg == "shell" for keyword in node.keywords):
                yield f"{name} with a shell"
        for name in imports(node) if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if name.partition(".")[0] in ("pickle", "cPickle", "dill", "marshal", "shelve", "joblib", "click"):
                yield f"import {name}"


def prints(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "typer.echo", "typer.secho", "pprint"):
            yield ast.unparse(node)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def undocumented(tree: ast.Module, prefix: str = "") -> Iterator[str]:
    """Public modules, classes and functions without a docstring; what is inside a function is private."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                yield f"{prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from undocumented(ast.Module(node.body, []), f"{node.name}.")


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    found = [name for name in own_imports(module) if upward(part(module), name)]
    assert not found, f"{module} must not import {found}"


def test_every_module_has_its_floor() -> None:
    for module in MODULES:
        assert floor(part(module)) >= 0
    for names in FLOORS:
        for name in names:
            assert any(part(module) == name for module in MODULES), f"there is no {name}"


def test_no_cycles() -> None:
    graph = {module: {name for name in own_imports(module) if name in MODULES} for module in MODULES}
    while leaves := [module for module, below in graph.items() if not below]:
        for leaf in leaves:
            del graph[leaf]
        for below in graph.values():
            below.difference_update(leaves)
    assert not graph, f"cycle among {sorted(graph)}"


def test_only_the_command_line_prints() -> None:
    found = {module: list(prints(tree)) for module, tree in TREES.items() if part(module) != "cli"}
    assert not {module: calls for module, calls in found.items() if calls}


def test_nothing_unsafe_is_called() -> None:
    found = {module: list(misdeeds(tree)) for module, tree in TREES.items()}
    assert not {module: names for module, names in found.items() if names}


def test_text_works_without_torch() -> None:
    for module in MODULES:
        if part(module) in ("text", "config", "run", "durable", "bar", "errors", "cli"):
            assert "torch" not in {name.partition(".")[0] for name in imports(TREES[module])}, module


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    for module, tree in TREES.items():
        for node in tree.body:
            found = {name.partition(".")[0] for name in imports(node)} if not _runs_later(node) else set()
            assert not found & HEAVY, f"{module} imports {found & HEAVY} at its top"


def _runs_later(node: ast.stmt) -> bool:
    """Definitions, and what only the type checker reads."""
    definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    return definition or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")


def test_files_are_readable_in_one_sitting() -> None:
    lengths = {module: source.count("\n") for module, source in SOURCES.items()}
    assert not {module: length for module, length in lengths.items() if length > MOST_LINES}


def test_functions_fit_a_screen() -> None:
    long = {
        f"{module}.{node.name}": length
        for module, tree in TREES.items()
        for node in functions(tree)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }
    assert not long


def test_everything_public_has_a_docstring() -> None:
    found = {module: list(undocumented(tree)) for module, tree in TREES.items()}
    assert not {module: names for module, names in found.items() if names}
    empty = {module for module, source in SOURCES.items() if source and ast.get_docstring(TREES[module]) is None}
    assert not empty


def test_names_say_something() -> None:
    assert not [module for module in MODULES if set(module.split(".")) & EMPTY_WORDS]


def test_stages_are_not_named_like_the_standard_library() -> None:
    assert not {module.rpartition(".")[2] for module in MODULES if part(module) == "stages"} & sys.stdlib_module_names


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load('x')", "torch.save(x, 'x')", "import pickle", "from pickle import loads", "eval('1')",
        "yaml.load(x)", "yaml.safe_load(x)", "text.splitlines()", "subprocess.run(x, shell=True)", "os.system(x)",
        "def f():\n    exec('1')", "import click", "from click import echo",
    ],
)  # fmt: skip
def test_misdeeds_are_seen(source: str) -> None:
    assert list(misdeeds(ast.parse(source)))


@pytest.mark.parametrize("source", ["model.eval()", "json.loads(x)", "text.split('\\n')", "import yaml\nyaml.parse(x)"])
def test_the_innocent_are_left_alone(source: str) -> None:
    assert not list(misdeeds(ast.parse(source)))


@pytest.mark.parametrize(
    ("module", "imported", "wrong"),
    [
        ("translate.models.rnn", "translate.text.lines", True),
        ("translate.models.rnn", "translate.run", True),
        ("translate.text.lines", "translate.models.rnn", True),
        ("translate.decoding.beam", "translate.training.loop", True),
        ("translate.config", "translate.run", True),
        ("translate.training.loop", "translate.stages.training", True),
        ("translate.stages.training", "translate.cli", True),
        ("translate.stages.training", "translate.training.loop", False),
        ("translate.models.rnn", "translate.config", False),
        ("translate.training.checkpoint", "translate", False),
    ],
)
def test_wrong_directions_are_seen(module: str, imported: str, wrong: bool) -> None:
    assert upward(part(module), imported) is wrong


def test_long_and_silent_code_is_seen() -> None:
    tree = ast.parse("def f():\n    print(1)\n\nclass C:\n    def m(self): pass\n    def _p(self): pass\n")
    assert list(undocumented(tree)) == ["f", "C", "C.m"]
    assert list(prints(tree)) == ["print(1)"]
