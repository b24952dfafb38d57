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
    {"planning", "verification"},
    set(),                                 # every other module: the API
    {"cli", "web", "__main__"},
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
            names = [name for name in names if not name.startswith("__")]
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
    assert floor("wire") < floor("artifact") < floor("formats") < floor("planning") < floor("identify") < floor("cli")


def test_no_public_name_is_a_module() -> None:
    """Importing a module sets its name in the package, which would replace a function of the same name."""
    assert not set(isomorph.__all__) & {path.parts[0].removesuffix(".py") for path in MODULES}
    for name in isomorph.__all__:
        assert getattr(isomorph, name).__module__.startswith("isomorph.")
