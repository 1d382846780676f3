"""The rule of rooms and rings, as a failing test instead of a review remark.

Rooms are the import packages; imports point one way: perdure_server -> perdure_processor -> perdure.protocol.
Rings are what a file may touch, marked in the first line of its docstring: ● core, ◐ shell, ○ adapter.
ARCHITECTURE.md has the table; this file has the letter of it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("sdk", "partition_processor", "server")
MARKS = {"● core · ": "core", "◐ shell · ": "shell", "○ adapter · ": "adapter"}
# Checked in as generated; a test of the protocol regenerates and compares it.
GENERATED = {"perdure.protocol.service_pb2"}
# What each room may import of ours, itself included.
ROOMS = {
    "perdure": ("perdure",),
    "perdure_processor": ("perdure_processor", "perdure.protocol"),
    "perdure_server": ("perdure_server", "perdure_processor", "perdure"),
}
# Standard library with a clock, chance, threads or the outside world in it.
NOT_IN_CORE = {
    *("asyncio", "concurrent", "multiprocessing", "subprocess", "threading", "_thread", "sched", "signal"),
    *("ctypes", "fcntl", "io", "logging", "mmap", "os", "pathlib", "shutil", "tempfile"),
    *("http.client", "http.server", "select", "selectors", "socket", "socketserver", "ssl", "urllib.request"),
    *("random", "secrets", "time"),
}
CALLS_NOT_IN_CORE = {"open", "print", "input", "hash", "id"}
CLOCK_READS = {"now", "utcnow", "today"}
# The few third-party libraries that core files may use, and the files that may.
CORE_LIBRARIES = {
    "msgpack": lambda module: module.endswith(".codec"),
    "google": lambda module: module.startswith("perdure.protocol"),
    "xxhash": lambda module: module.endswith(".ids"),
}
# Libraries that are parts of another one: an adapter may use the whole family.
FAMILY = {
    **dict.fromkeys(("multidict", "yarl", "aiosignal", "frozenlist"), "aiohttp"),
    "pyarrow": "datafusion",
}
# The one place where adapters meet ports.
COMPOSES = {"perdure_server.node", "perdure_server.__main__"}
# The command line imports a command's machinery when the command runs, so that --help needs none of it.
LATE_IMPORTS = "perdure_server.cli"
# In perdure_processor.state_machine arrows point to lower or equal ranks; the rest is rank 2.
RANKS = {"step": 0, "objects": 1, "lifecycle": 1, "notifications": 1, "promises": 1, "state_patch": 1, "machine": 9}
OPENERS = {
    "open",
    "connect",
    "create_connection",
    "create_server",
    "socket",
    "Popen",
    "run",
    "ClientSession",
    "get_event_loop",
}


class Module:
    """One source file: its name, ring and syntax tree."""

    def __init__(self, name: str, source: str, is_package: bool) -> None:
        self.name, self.is_package = name, is_package
        self.tree = ast.parse(source)
        first = (ast.get_docstring(self.tree) or "").partition("\n")[0]
        self.ring = next((ring for mark, ring in MARKS.items() if first.startswith(mark)), None)
        if not self.tree.body:
            self.ring = "core"  # an empty __init__.py has nothing to say

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    def imports(self) -> Iterator[tuple[ast.stmt, str]]:
        """(statement, dotted name) of everything imported; `from a import b` gives a.b."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = self.name.split(".")
                    parts = parts[: len(parts) - node.level + self.is_package]
                    base = ".".join([*parts, base] if base else parts)
                yield from ((node, f"{base}.{alias.name}") for alias in node.names)


def modules_of(files: Mapping[str, str]) -> dict[str, Module]:
    """Modules by dotted name, from file paths below a source root."""
    modules = {}
    for path, source in files.items():
        parts = path.removesuffix(".py").split("/")
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        if name not in GENERATED:
            modules[name] = Module(name, source, is_package)
    return modules


def violations(files: Mapping[str, str]) -> list[str]:
    """Every break of the rules, as `module:line: what`."""
    modules = modules_of(files)
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for module in modules.values():
        found += ring_mark(module)
        graph[module.name] = set()
        for_types = imports_for_types(module.tree)
        for statement, dotted in module.imports():
            target = known(dotted, modules)
            if target is not None and target != module.name and statement not in for_types:
                graph[module.name].add(target)
            found += (
                f"{module.name}:{statement.lineno}: {text}" for text in import_rules(module, dotted, target, modules)
            )
        found += imports_in_functions(module)
        found += libraries(module)
        found += opens_at_import(module)
        if module.ring == "core":
            found += core_rules(module)
    return [*found, *cycles(graph)]


def ring_mark(module: Module) -> Iterator[str]:
    """The file says what it is, and what it imports is not evaluated for annotations."""
    if module.ring is None:
        yield f"{module.name}:1: the docstring's first line names no ring"
    body = [node for node in module.tree.body if not is_docstring(node)]
    future = body and isinstance(body[0], ast.ImportFrom) and body[0].module == "__future__"
    if body and not future:
        yield f"{module.name}:1: `from __future__ import annotations` comes first"


def known(dotted: str, modules: Mapping[str, Module]) -> str | None:
    """The module of ours that an imported name belongs to."""
    if dotted in modules:
        return dotted
    parent = dotted.rpartition(".")[0]
    return parent if parent in modules else None


def import_rules(module: Module, dotted: str, target: str | None, modules: Mapping[str, Module]) -> Iterator[str]:
    root = dotted.partition(".")[0]
    if root in ROOMS:
        if not any(dotted == allowed or dotted.startswith(allowed + ".") for allowed in ROOMS[module.room]):
            yield f"{module.room} may not import {dotted}"
        if target is None:
            return
        ring = modules[target].ring
        if module.ring == "core" and ring != "core":
            yield f"core may not import {target}, which is {ring}"
        if module.ring == "shell" and ring == "adapter" and module.name not in COMPOSES:
            yield f"shell may not import the adapter {target}; take the port it implements"
        yield from state_machine_arrows(module.name, target)
    elif root in sys.stdlib_module_names:
        banned = next((name for name in NOT_IN_CORE if dotted == name or dotted.startswith(name + ".")), None)
        if module.ring == "core" and banned:
            yield f"core may not import {banned}"
    elif module.ring == "core":
        if root not in CORE_LIBRARIES or not CORE_LIBRARIES[root](module.name):
            yield f"core may not import {root}"
    elif module.ring == "shell":
        yield f"shell may not import the library {root}; that is an adapter's"


def state_machine_arrows(name: str, target: str) -> Iterator[str]:
    package = "perdure_processor.state_machine."
    if not (name.startswith(package) and target.startswith(package)):
        return
    mine, theirs = name.removeprefix(package), target.removeprefix(package)
    if RANKS.get(theirs, 2) > RANKS.get(mine, 2):
        yield f"in state_machine the arrow {mine} -> {theirs} points up"


def imports_for_types(tree: ast.AST) -> set[ast.AST]:
    """What stands under `if TYPE_CHECKING:` is no dependency when the program runs, and so closes no cycle."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            found.update(inner for statement in node.body for inner in ast.walk(statement))
    return found


def imports_in_functions(module: Module) -> Iterator[str]:
    if module.name.startswith(LATE_IMPORTS):
        return
    for function in ast.walk(module.tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    yield f"{module.name}:{node.lineno}: import inside a function"


def libraries(module: Module) -> Iterator[str]:
    roots = {dotted.partition(".")[0] for _, dotted in module.imports()}
    third_party = {FAMILY.get(root, root) for root in roots - sys.stdlib_module_names - ROOMS.keys()}
    if module.ring == "adapter" and len(third_party) > 1:
        yield f"{module.name}:1: an adapter is over one library, not {', '.join(sorted(third_party))}"


def opens_at_import(module: Module) -> Iterator[str]:
    """Calls made while the module is imported that open, connect or start something."""
    pending: list[ast.AST] = list(module.tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "__main__" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Call) and called(node) in OPENERS:
            yield f"{module.name}:{node.lineno}: {called(node)}() while the module is imported"
        pending += ast.iter_child_nodes(node)


def called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def core_rules(module: Module) -> Iterator[str]:
    sets = names_of_sets(module.tree)
    for node in ast.walk(module.tree):
        where = f"{module.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{where}: core does not await"
        elif isinstance(node, ast.AsyncFunctionDef) and not is_declaration(node):
            yield f"{where}: core has no async functions"
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS_NOT_IN_CORE:
                yield f"{where}: core does not call {node.func.id}()"
            if isinstance(node.func, ast.Attribute) and node.func.attr in CLOCK_READS and not node.args:
                yield f"{where}: core does not read a clock ({node.func.attr})"
            if called(node) in {"list", "tuple", "iter", "enumerate"} and node.args and is_set(node.args[0], sets):
                yield f"{where}: the order of a set is nobody's; sort it"
        elif isinstance(node, ast.For | ast.comprehension) and is_set(node.iter, sets):
            yield f"{module.name}:{node.iter.lineno}: iteration over a set; sort it"


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_declaration(function: ast.AsyncFunctionDef) -> bool:
    """A port declares what an adapter will do: a docstring or `...`, and no code."""
    return all(is_docstring(node) for node in function.body)


def names_of_sets(tree: ast.AST) -> set[str]:
    """Names (`x`) and attributes (`self.x` as `.x`) that hold a set wherever the file says so."""
    yes: set[str] = set()
    no: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    (yes if "set" in annotation_words(field.annotation) else no).add("." + field.target.id)
        if isinstance(node, ast.AnnAssign):
            (yes if "set" in annotation_words(node.annotation) else no).update(assigned([node.target]))
        elif isinstance(node, ast.arg) and node.annotation is not None:
            (yes if "set" in annotation_words(node.annotation) else no).add(node.arg)
        elif isinstance(node, ast.Assign):
            (yes if is_set(node.value, set()) else no).update(assigned(node.targets))
    return yes - no


def annotation_words(annotation: ast.expr) -> set[str]:
    """The outermost type names: `frozenset[int] | None` is about a set, `list[set[int]]` is not."""
    if isinstance(annotation, ast.BinOp):
        return annotation_words(annotation.left) | annotation_words(annotation.right)
    outer = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    word = outer.id if isinstance(outer, ast.Name) else ""
    return {"set"} if word in {"set", "frozenset", "Set", "AbstractSet", "MutableSet"} else {word}


def assigned(targets: Iterable[ast.expr]) -> Iterator[str]:
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, ast.Attribute):
            yield "." + target.attr


def is_set(node: ast.expr, names: set[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in {"set", "frozenset"}
    return any(name in names for name in assigned([node]))


def cycles(graph: Mapping[str, set[str]]) -> Iterator[str]:
    """One line per cycle that a depth-first walk meets."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> Iterator[str]:
        if name in path:
            yield "import cycle: " + " -> ".join([*path[path.index(name) :], name])
            return
        if name in done:
            return
        path.append(name)
        for target in sorted(graph.get(name, ())):
            yield from visit(target)
        path.pop()
        done.add(name)

    for name in sorted(graph):
        yield from visit(name)


def sources() -> dict[str, str]:
    files = {}
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder).as_posix()
            if inside.startswith("perdure"):  # sdk/examples are programs of users, in no room
                files[inside] = path.read_text()
    return files


def test_rooms_and_rings() -> None:
    files = sources()
    assert len(files) > 20, "the sources were not found"
    found = violations(files)
    assert not found, "\n".join(["", *found])


CORE = '"""● core · A file."""\nfrom __future__ import annotations\n'
SHELL = CORE.replace("● core", "◐ shell")
ADAPTER = CORE.replace("● core", "○ adapter")


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("perdure/a.py", "x = 1\n", "names no ring"),
        ("perdure/a.py", '"""● core · A file."""\nx = 1\n', "comes first"),
        ("perdure/a.py", CORE + "import perdure_processor\n", "perdure may not import perdure_processor"),
        ("perdure_processor/a.py", CORE + "import perdure.client\n", "may not import perdure.client"),
        ("perdure_processor/a.py", CORE + "import perdure_server\n", "may not import perdure_server"),
        ("perdure/a.py", CORE + "import time\n", "core may not import time"),
        ("perdure/a.py", CORE + "from os import path\n", "core may not import os"),
        ("perdure/a.py", CORE + "import msgpack\n", "core may not import msgpack"),
        (
            "perdure/a.py",
            CORE + "from .shell import x\n",
            "core may not import perdure.shell, which is shell",
        ),
        ("perdure/a.py", SHELL + "from perdure.adapter import x\n", "shell may not import the adapter"),
        ("perdure/a.py", SHELL + "import aiohttp\n", "shell may not import the library aiohttp"),
        ("perdure/a.py", ADAPTER + "import aiohttp\nimport click\n", "over one library, not aiohttp, click"),
        ("perdure/a.py", SHELL + "def f():\n    import json\n", "import inside a function"),
        ("perdure/a.py", SHELL + "class A:\n    log = open('x')\n", "open() while the module is imported"),
        ("perdure/a.py", CORE + "async def f():\n    return 1\n", "no async functions"),
        ("perdure/a.py", CORE + "x = hash('a')\n", "does not call hash()"),
        ("perdure/a.py", CORE + "def f(d):\n    return d.datetime.now()\n", "does not read a clock"),
        ("perdure/a.py", CORE + "for x in {1, 2}:\n    pass\n", "iteration over a set"),
        ("perdure/a.py", CORE + "def f(s: set[int]):\n    return [x for x in s]\n", "iteration over a set"),
        (
            "perdure/a.py",
            CORE + "class A:\n    s: set[int]\n    def f(self):\n        return list(self.s)\n",
            "",
        ),
        (
            "perdure/a.py",
            CORE + "from perdure import b\n",
            "import cycle: perdure.a -> perdure.b -> perdure.a",
        ),
        ("perdure_processor/state_machine/step.py", CORE + "from . import objects\n", "points up"),
    ],
)
def test_each_rule_can_fail(path: str, source: str, complaint: str) -> None:
    others = {
        "perdure/shell.py": SHELL,
        "perdure/adapter.py": ADAPTER,
        "perdure/b.py": CORE + "from perdure.a import x\n",
        "perdure_processor/state_machine/objects.py": CORE,
    }
    assert any(complaint in line for line in violations({**others, path: source}))


@pytest.mark.parametrize(
    "source",
    [
        CORE + "class Port:\n    async def read(self) -> int:\n        ...\n",
        CORE + "def f(s: set[int], x: int) -> bool:\n    return x in s and sorted(s) == [x]\n",
        CORE + "import datetime, enum, json, urllib.parse\n",
        SHELL + "import asyncio\n",
        SHELL + "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from perdure.b import x\n",
        ADAPTER + "import aiohttp, multidict\n",
    ],
)
def test_what_is_allowed(source: str) -> None:
    others = {"perdure/b.py": SHELL + "from perdure.a import x\n"} if "perdure.b" in source else {}
    assert violations({**others, "perdure/a.py": source}) == []
