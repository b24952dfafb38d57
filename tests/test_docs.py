"""Everything that a user can meet is documented: commands, formats, errors and findings. The codes are read from the source."""
from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import isomorph
from isomorph import errors
from isomorph.explanations import explanations
from isomorph.formats import _table

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(isomorph.__file__).parent
CODE = re.compile(r"^[a-z]+([.-][a-z0-9-]+)+$")
MAKERS = {"Finding": 0, "add": 0, "lose": 0, "Note": 0, "_note": 0}      # function or method that makes a finding -> which argument is its code


def codes_in(tree: ast.AST) -> set[str]:
    """The literal codes that a module gives to findings."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
            place = MAKERS.get(name)
            if place is not None and len(node.args) > place:
                found |= {text for text in literals(node.args[place]) if CODE.match(text)}
    return found


def literals(node: ast.AST) -> set[str]:
    """The texts that an expression may be: a literal, or a choice of literals."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return literals(node.body) | literals(node.orelse)
    return set()


MODULES = sorted(SOURCE.rglob("*.py"))
ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.IsomorphError)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_finding_is_explained(path):
    unknown = codes_in(ast.parse(path.read_text(encoding="utf-8"))) - explanations().keys()
    assert not unknown, f"data/explanations.toml does not explain {sorted(unknown)}"


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_is_explained_and_drawn(kind):
    assert kind.code in explanations()
    assert re.search(rf"{kind.__name__} .*exit {kind.exit_code} ", errors.__doc__) or kind is errors.Usage
    assert str(kind.exit_code) in explanations()[kind.code]


def test_the_codes_are_really_read():
    tree = ast.parse("report.add('a.b', 1, '', ''); Finding('c.d' if x else 'e.f-g', 2); names.add('word'); op.lose('h.i', 'm')")
    assert codes_in(tree) == {"a.b", "c.d", "e.f-g", "h.i"}
    assert "verify.mismatch" in set().union(*(codes_in(ast.parse(path.read_text())) for path in MODULES))


def test_no_explanation_is_left_over():
    used = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)
    left = [code for code in explanations() if f'"{code}"' not in used and not code.startswith("diff.")]
    assert not left


@pytest.mark.parametrize("name", list(_table.FORMATS))
def test_every_format_has_a_title_and_says_what_to_do(name):
    row = _table.FORMATS[name]
    assert row.title
    if row.module:
        form = row.load()
        assert (form.name, form.title) == (row.name, row.title)
        assert form.spec.startswith("https://")
        assert form.read or form.write is None, "a format that is written must be read, or nothing proves what was written"
    else:
        assert row.hint, "a format that is only recognised says what to do with it"


def test_links_in_the_documentation_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
