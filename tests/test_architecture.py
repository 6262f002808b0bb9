"""The house holds: imports go down floors, each big library has one room, no file or function grows a long tail.

Everything is read from the source by `ast`; nothing is imported. The rules are functions of a source text, so that
the tests at the end can show each of them fail.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    ("experience", "config", "seeding", "policy", "run_folder", "redaction"),
    ("algorithm", "data", "envs", "onnx_graph"),
    ("evaluation", "checkpoint", "run_copies"),
    ("tracking", "report"),
    ("distributed",),
    ("recipes",),
    ("pipelines",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

LIBRARY_ROOMS = {
    "ray": ("iql_ray/distributed/", "pipelines/ray_session.py"),
    "mlflow": ("iql_ray/tracking/",),
    "matplotlib": ("iql_ray/report/",),
    "minari": ("iql_ray/data/sources",),
    "h5py": ("iql_ray/data/sources",),
    "onnx": ("iql_ray/onnx_graph.py",),
    "tyro": ("pipelines/", "iql_ray/distributed/train_config.py"),
}

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
SHORT_FUNCTION_LINES = 30
SHORT_SHARE = 0.9

HOUSE = sorted(path for room in ("iql_ray", "pipelines") for path in (ROOT / room).rglob("*.py"))
EVERYTHING = sorted([*HOUSE, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


def room_of(module: str) -> str | None:
    """The room that a dotted name lies in: `iql_ray.data.schema` is in data, numpy in none."""
    top, _, rest = module.partition(".")
    if top == "pipelines":
        return "pipelines"
    return rest.partition(".")[0] or None if top == "iql_ray" else None


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported absolutely, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def floor_violations(path: str, tree: ast.AST) -> Iterator[str]:
    """Imports of our own that do not go down, and own names that belong to no floor."""
    room = room_of(path.removesuffix(".py").replace("/", "."))
    for line, module in imports(tree):
        target = room_of(module)
        if target is None or target == room:
            continue
        if target not in FLOOR_OF:
            yield f"{path}:{line}: {module} is on no floor; add '{target}' to FLOORS"
        elif room not in FLOOR_OF or FLOOR_OF[target] >= FLOOR_OF[room]:
            yield f"{path}:{line}: {room} may not import {module}"


def library_violations(path: str, tree: ast.AST) -> Iterator[str]:
    """A big library imported outside its room."""
    for line, module in imports(tree):
        rooms = LIBRARY_ROOMS.get(module.partition(".")[0])
        if rooms and not path.startswith(rooms):
            yield f"{path}:{line}: {module} belongs in {' or '.join(rooms)}"


def form_violations(path: str, tree: ast.Module) -> Iterator[str]:
    """No wildcard, no relative import of a parent, a docstring first (an empty `__init__.py` says enough)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if any(name.name == "*" for name in node.names):
                yield f"{path}:{node.lineno}: wildcard import"
            if node.level > 1:
                yield f"{path}:{node.lineno}: relative import of a parent"
    if tree.body and ast.get_docstring(tree) is None:
        yield f"{path}:1: opens without a docstring"


def length_violations(path: str, source: str) -> Iterator[str]:
    """A file or function too long to read in one go."""
    num_lines = len(source.splitlines())
    if num_lines > MAX_FILE_LINES:
        yield f"{path}: {num_lines} lines, at most {MAX_FILE_LINES}"
    for name, line, length in functions(ast.parse(source)):
        if length > MAX_FUNCTION_LINES:
            yield f"{path}:{line}: {name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def functions(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    """Name, line and length of every function; the docstring does not count."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            text = node.body[0] if ast.get_docstring(node) is not None else None
            docstring_lines = text.end_lineno - text.lineno + 1 if text and text.end_lineno else 0
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines


def relative(path: Path) -> str:
    return PurePosixPath(path.relative_to(ROOT)).as_posix()


def trees(paths: list[Path]) -> Iterator[tuple[str, ast.Module]]:
    return ((relative(path), ast.parse(path.read_text(), str(path))) for path in paths)


def test_imports_go_down_floors():
    assert [line for path, tree in trees(HOUSE) for line in floor_violations(path, tree)] == []


def test_every_room_is_on_a_floor():
    rooms = {room_of(relative(path).removesuffix(".py").replace("/", ".")) for path in HOUSE}
    assert rooms - {"__init__"} <= set(FLOOR_OF)


def test_each_big_library_has_one_room():
    assert [line for path, tree in trees(HOUSE) for line in library_violations(path, tree)] == []


def test_the_policy_imports_nothing_of_ours():
    tree = ast.parse((ROOT / "iql_ray/policy.py").read_text())
    assert not [module for _, module in imports(tree) if module.startswith(("iql_ray", "pipelines"))]


def test_files_open_with_a_docstring_and_import_by_name():
    assert [line for path, tree in trees(EVERYTHING) for line in form_violations(path, tree)] == []


def test_no_file_or_function_is_a_long_read():
    assert [line for path in HOUSE for line in length_violations(relative(path), path.read_text())] == []


def test_nine_functions_in_ten_are_short():
    lengths = [length for _, tree in trees(HOUSE) for _, _, length in functions(tree)]
    assert sum(length < SHORT_FUNCTION_LINES for length in lengths) >= SHORT_SHARE * len(lengths)


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("iql_ray/data/a.py", "from iql_ray.evaluation.episodes import run", "data may not import"),
        ("iql_ray/data/a.py", "import iql_ray.algorithm.losses", "data may not import"),
        ("iql_ray/data/a.py", "def f():\n    from iql_ray import distributed", "a.py:2: data may not import"),
        ("iql_ray/config.py", "from iql_ray import seeding", "config may not import"),
        ("iql_ray/recipes.py", "import pipelines.train", "recipes may not import"),
        ("iql_ray/data/a.py", "from iql_ray.utils import helper", "is on no floor"),
        ("iql_ray/cellar/a.py", "from iql_ray import config", "cellar may not import"),
    ],
)
def test_an_import_that_does_not_go_down_is_found(path, source, message):
    (found,) = floor_violations(path, ast.parse(source))
    assert message in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("iql_ray/data/a.py", "from iql_ray.data.schema import SCHEMA"),
        ("iql_ray/data/a.py", "from iql_ray import config"),
        ("iql_ray/data/a.py", "import numpy"),
        ("pipelines/a.py", "from iql_ray.distributed.learner import train\nfrom pipelines import command_line"),
    ],
)
def test_an_import_that_goes_down_or_stays_is_none(path, source):
    assert list(floor_violations(path, ast.parse(source))) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("iql_ray/data/a.py", "import ray.data"),
        ("pipelines/train.py", "def f():\n    import ray"),
        ("iql_ray/distributed/a.py", "from mlflow.tracking import MlflowClient"),
        ("iql_ray/data/prepared.py", "import h5py"),
        ("iql_ray/algorithm/a.py", "from tyro import conf"),
    ],
)
def test_a_library_outside_its_room_is_found(path, source):
    assert len(list(library_violations(path, ast.parse(source)))) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('"""Doc."""\nfrom math import *', "wildcard"),
        ('"""Doc."""\nfrom ..data import schema', "relative import of a parent"),
        ("import math", "without a docstring"),
    ],
)
def test_bad_form_is_found(source, message):
    (found,) = form_violations("iql_ray/data/a.py", ast.parse(source))
    assert message in found


def test_a_function_counts_without_its_docstring():
    body = "    x = 1\n" * (MAX_FUNCTION_LINES - 1)
    docstring = '    """One\n    two\n    """\n'
    assert list(length_violations("a.py", f"def f():\n{docstring}{body}")) == []
    (found,) = length_violations("a.py", f"def f():\n{body}    x = 1\n")
    assert "a.py:1: f has 61 lines" in found


def test_a_long_file_is_found():
    (found,) = length_violations("a.py", "x = 1\n" * (MAX_FILE_LINES + 1))
    assert "351 lines" in found
