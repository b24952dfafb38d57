"""Who may import whom (docs/architecture.md): lower floors never import upper ones. The imports are read from the source, also those inside functions."""
from __future__ import annotations

import ast
from pathlib import Path

import pytest

import isomorph

ROOT = Path(isomorph.__file__).parent
FLOORS = (
    {"errors", "progress", "wire"},
    {"report", "tensors", "artifact", "model"},
    {"formats", "dialects", "architectures", "passes", "quant", "scan", "targets", "runtime", "train"},
    {"plan"},
    set(),                                 # every other module: the API
    {"cli", "web"},
)
API = 4
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def floor(name: str) -> int:
    return next((number for number, names in enumerate(FLOORS) if name in names), API)


def imported(path: Path) -> set[str]:
    """The parts of isomorph that a module imports: the component below `isomorph`, or "" for the package itself."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import, which this test does not follow"
            module = node.module or ""
            names = [alias.name for alias in node.names] if module == "isomorph" else [module.removeprefix("isomorph.").split(".")[0]]
            found |= set(names) if module.split(".")[0] == "isomorph" else set()
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2].split(".")[0] for alias in node.names if alias.name.split(".")[0] == "isomorph"}
    return found


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down(path: Path) -> None:
    mine = path.parts[0].removesuffix(".py")
    upward = {name for name in imported(path) if floor(name) > floor(mine) and name != mine}
    if mine == "__init__":
        upward -= {name for name in upward if floor(name) == API}
    assert not upward, f"{path} stands on floor {floor(mine)} and imports {sorted(upward)} from above"


def test_wire_imports_only_errors() -> None:
    for path in MODULES:
        if path.parts[0] == "wire":
            assert imported(path) <= {"errors", "wire"}, path


def test_the_rule_is_read_from_the_source() -> None:
    assert "errors" in imported(Path("wire/archive.py"))
    assert floor("wire") < floor("artifact") < floor("formats") < floor("plan") < floor("identify") < floor("cli")
