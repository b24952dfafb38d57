"""A TorchScript archive as a program: classes and functions as syntax trees, the root object, the constants. Nothing of the code is ever compiled or run."""
from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsafe
from isomorph.formats import _torch, _torch_files
from isomorph.formats._torch_values import DType, TensorRecord
from isomorph.wire.pickle_records import Call, Dict, Name

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

LONGEST_CODE = 1 << 24                     # bytes of one file of code
OWN = "__torch__"


class Program:
    """The code and objects of a file. Names of classes begin with `__torch__.`; files of code are parsed when a name of theirs is used."""

    def __init__(self, artifact: Artifact):
        from isomorph.dialects.torch.program_values import Obj
        archive = _torch.zip_of(artifact)
        root = _torch.root_of(archive, "data.pkl") if archive else None
        if archive is None or root is None:
            raise Damaged("no TorchScript archive", where=artifact.where)
        self.artifact, self.archive, self.root, self._new = artifact, archive, root, Obj
        loaded = _torch_files.load_zip(archive, root, artifact.limits, artifact.where)
        self.notes = [note for note in loaded.notes if OWN not in note.message]
        self._made: dict[int, Any] = {}
        self._modules: dict[str, dict[str, Any]] = {}
        self.main = self._object(loaded.value, "", 0)
        self._constants: list[Any] | None = None
        if not isinstance(self.main, Obj):
            raise Damaged("data.pkl holds no module", where=artifact.where)

    # ---- objects

    def _object(self, value: Any, path: str, depth: int) -> Any:
        """Records as the interpreter takes them; one object for one record."""
        if depth > self.artifact.limits.pickle_depth:
            raise Unsafe("modules inside modules without end", where=self.artifact.where)
        if isinstance(value, DType):
            from isomorph.dialects.torch.to_onnx import SCALAR_TYPES
            return next((place for place, kind in enumerate(SCALAR_TYPES) if kind is not None and int(kind) == value.element_type), 6)
        if isinstance(value, Dict):
            return {key: self._object(item, f"{path}.{key}", depth + 1) for key, item in value.items if isinstance(key, (str, int, float, bool))}
        if isinstance(value, (list, tuple)):
            return type(value)(self._object(item, f"{path}.{place}", depth + 1) for place, item in enumerate(value))
        if not isinstance(value, Call) or not isinstance(value.callee, Name):
            return value
        if id(value) not in self._made:
            fields: dict[str, Any] = {}
            self._made[id(value)] = self._new(str(value.callee), fields, path)
            for key, item in value.state.items if isinstance(value.state, Dict) else ():
                if isinstance(key, str):
                    fields[key] = self._object(item, f"{path}.{key}" if path else key, depth + 1)
        return self._made[id(value)]

    @staticmethod
    def is_tensor(value: Any) -> bool:
        return isinstance(value, TensorRecord)

    @staticmethod
    def tensor(record: TensorRecord, path: str) -> Any:
        return record.tensor(path)

    def constant(self, place: int) -> Any:
        """CONSTANTS.c<place>. Raises `Damaged` where there is none."""
        if self._constants is None:
            loaded = _torch_files.load_zip(self.archive, self.root, self.artifact.limits, self.artifact.where, member="constants.pkl", folder="constants/")
            self._constants = list(self._object(loaded.value, "constants", 0)) if isinstance(loaded.value, (list, tuple)) else []
        if place >= len(self._constants):
            raise Damaged(f"the code uses constant {place} and there are {len(self._constants)}", where=self.artifact.where)
        return self._constants[place]

    def traced_inputs(self) -> list[Any]:
        """The tensors that a trace was made with, as records; empty where the file does not keep them."""
        if self.root + "traced_inputs.pkl" not in self.archive.members:
            return []
        loaded = _torch_files.load_zip(self.archive, self.root, self.artifact.limits, self.artifact.where, member="traced_inputs.pkl", data=False)
        kept = loaded.value.get("forward") if isinstance(loaded.value, Dict) else None
        return list(kept) if isinstance(kept, (list, tuple)) else []

    # ---- code

    def _definitions(self, module: str) -> dict[str, Any]:
        """The classes and functions of `__torch__.a.b`, which stands in code/__torch__/a/b.py."""
        if module not in self._modules:
            member = f"{self.root}code/{module.replace('.', '/')}.py"
            tree = self._parse(member) if member in self.archive.members else ast.Module([], [])
            self._modules[module] = {node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        return self._modules[module]

    def _parse(self, member: str) -> ast.Module:
        text = bytes(self.archive.read(member, LONGEST_CODE))
        try:
            return ast.parse(text.decode("utf-8"))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise Damaged(f"the code cannot be parsed ({str(error)[:120]})", where=f"{self.artifact.where}, {member}") from None

    def _find(self, name: str, kind: type) -> Any:
        module, _, short = name.rpartition(".")
        found = self._definitions(module).get(short) if module.startswith(OWN) else None
        return found if isinstance(found, kind) else None

    def function(self, name: str) -> ast.FunctionDef | None:
        return self._find(name, ast.FunctionDef)

    def has_class(self, name: str) -> bool:
        return self._find(name, ast.ClassDef) is not None

    def method(self, kind: str, name: str) -> ast.FunctionDef | None:
        body = getattr(self._find(kind, ast.ClassDef), "body", [])
        return next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == name), None)

    def class_constant(self, kind: str, name: str) -> ast.expr | None:
        """The value of `name : Final[int] = 3` in a class."""
        body = getattr(self._find(kind, ast.ClassDef), "body", [])
        return next((node.value for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name), None)

    def fields(self, kind: str) -> list[str]:
        """The annotated names of a class in their order, as a named tuple takes them."""
        body = getattr(self._find(kind, ast.ClassDef), "body", [])
        return [node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
