"""SavedModel folders, frozen graphs and graphs of checkpoints -> models of the dialect "tf"."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, IsomorphError, Missing, Unsupported, Usage
from isomorph.formats import _chunked, _tf_effects
from isomorph.formats._graphdef import Content, Decoder, split_reference
from isomorph.formats._tf_tensors import schema
from isomorph.formats._tf_variables import HANDLES, TABLES, Place, keys_of_variables, stored_part, stored_tensor
from isomorph.report import Finding, Severity
from isomorph.wire import protobuf
from isomorph.wire.protobuf import Record
from isomorph.wire.tf_operators import TYPES

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Checkpoint, Model
    from isomorph.wire.tensor_bundle import Bundle

INITIALISERS = ("__saved_model_init_op", "__saved_model_train_op")
INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op", "table_initializer")
DEFAULT_SIGNATURE = "serving_default"
MOST_ASSET_BYTES = 1 << 28


def record_of(artifact: Artifact, message: str) -> Record:
    """The message that a file holds, in binary, in text or in chunks."""
    if _chunked.is_chunked(artifact):
        return _chunked.read(artifact, schema()[message])
    if (artifact.head[:1].isalpha() and b":" in artifact.head[:4096]) or artifact.head[:1] == b"#" or artifact.head[:16].lstrip()[:1].isalpha():
        from isomorph.wire import prototext
        try:
            return prototext.read(artifact.view, schema()[message], artifact.limits, artifact.where)
        except Damaged:
            if artifact.suffix == ".pbtxt":
                raise
    return protobuf.read(artifact.view, schema()[message], artifact.limits, artifact.where)


def read_saved_model(artifact: Artifact, signature: str | None = None) -> Model:
    """The graph of one signature: the one that is named, `serving_default`, or the first."""
    folder, file = _parts(artifact)
    root = record_of(file, "SavedModel")
    if not root.meta_graphs:
        raise Damaged("it holds no graph", where=file.where)
    meta = next((item for item in root.meta_graphs if item.meta_info_def is not None and "serve" in item.meta_info_def.tags), root.meta_graphs[0])
    findings = []
    if len(root.meta_graphs) > 1:
        sentence = f"{len(root.meta_graphs) - 1} other graphs of the file (for other tags) are left out"
        findings.append(Finding("tf.meta-graphs", Severity.LOW, file.where, sentence))
    bundle = _bundle(folder)
    return _Reader(meta, file, bundle, folder, findings).model(signature)


def _parts(artifact: Artifact) -> tuple[Artifact | None, Artifact]:
    if not artifact.is_folder:
        from isomorph.artifact import Artifact as Kind
        return (Kind(artifact.path.parent, limits=artifact.limits) if artifact.path is not None else None), artifact
    from isomorph.formats.saved_model import NAMES
    file = next((file for name in NAMES if (file := artifact.child(name)) is not None), None)
    if file is None:
        raise Missing("there is no saved_model.pb", where=artifact.where)
    return artifact, file


def _bundle(folder: Artifact | None) -> Bundle | None:
    variables = folder.child("variables") if folder is not None else None
    if variables is None or variables.path is None or "variables.index" not in variables.names:
        return None
    from isomorph.wire.tensor_bundle import open_bundle
    return open_bundle(variables.path, "variables", folder.limits)          # type: ignore[union-attr]


def read_checkpoint_graph(artifact: Artifact, signature: str | None = None) -> Model:
    """The graph of a .meta file, with the variables of the checkpoint beside it."""
    meta = record_of(artifact, "MetaGraphDef")
    bundle = None
    if artifact.path is not None:
        from isomorph.wire.tensor_bundle import open_bundle
        prefix = artifact.path.name.removesuffix(".meta")
        try:
            bundle = open_bundle(artifact.path.parent, prefix, artifact.limits)
        except Missing:
            raise Missing(f"the checkpoint {prefix}.index of this graph is not there", where=artifact.where,
                          hint="put it and its data beside the graph") from None
    return _Reader(meta, artifact, bundle, None, []).model(signature)


def read_graph_def(artifact: Artifact) -> Model:
    """A graph alone: its inputs are its placeholders, its outputs the values that nobody reads."""
    from isomorph.model import Model
    graph_def = record_of(artifact, "GraphDef")
    return plain_model(graph_def, artifact, Model)


def read_checkpoint(artifact: Artifact) -> Checkpoint:
    """The tensors of a checkpoint by name, from its index or from the folder of the newest."""
    from isomorph.model import Checkpoint
    from isomorph.wire.tensor_bundle import open_bundle
    name = artifact.name
    if artifact.is_folder:
        names = [name for name in artifact.names if name.endswith(".index")]
        file = artifact.child(names[-1]) if names else None
        if file is None:
            raise Missing("there is no index of a checkpoint in this folder", where=artifact.where)
        artifact, name = file, names[-1]
    if artifact.path is None:
        raise Missing("a checkpoint consists of several files: give a path", where=artifact.where)
    if not name.endswith(".index"):
        raise Unsupported("a checkpoint of the first version, or a part of one", where=artifact.where, hint="give its .index, or its .meta for the graph")
    bundle = open_bundle(artifact.path.parent, name.removesuffix(".index"), artifact.limits)
    return Checkpoint({key: stored_tensor(bundle, entry, key) for key, entry in bundle.items()})


def plain_model(graph_def: Record, artifact: Artifact, kind: Any, content: Content | None = None, findings: list[Finding] | None = None) -> Model:
    """The model of a graph without a signature."""
    from isomorph.model import Signature
    decoder = Decoder(graph_def, artifact.where, artifact.limits, content=content)
    wanted = _ends(graph_def)
    graph = decoder.model((), wanted)
    names = {str(value.name): str(value.name) for value in graph.graph.inputs}
    results = {split_reference(reference)[0]: str(value.name) for reference, value in zip(wanted, graph.graph.outputs, strict=True)}
    return kind(graph, "tf", [Signature("serving_default", names, results)], {"nodes": len(graph_def.node)},
                [*(findings or []), *_tf_effects.findings(graph_def, artifact.where)])


def _ends(graph_def: Record) -> list[str]:
    """The nodes that give a value which nobody reads, but for those that come from saving and restoring."""
    read = {split_reference(reference.removeprefix("^"))[0] for node in graph_def.node for reference in node.input}
    silent = {"NoOp", "Const", "Placeholder", "SaveV2", "Assert", "Print", "RestoreV2", "Assign", "AssignVariableOp", "NextIteration",
              "VarIsInitializedOp", "IsVariableInitialized", *HANDLES}
    nodes = {node.name: node for node in graph_def.node}
    ends = [node.name for node in graph_def.node if node.name not in read and node.op not in silent and not _saves(node.name, nodes)]
    return ends or [node.name for node in graph_def.node if node.name not in read and node.op in ("Const", "Placeholder")]


def _saves(name: str, nodes: dict[str, Record]) -> bool:
    """Whether a node comes, also by control inputs, from one that saves or restores."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        if nodes[name].op in ("SaveV2", "RestoreV2", "MergeV2Checkpoints"):
            return True
        waiting += [split_reference(reference.removeprefix("^"))[0] for reference in nodes[name].input]
    return False


class _Reader:
    """One MetaGraphDef with its variables and files."""

    def __init__(self, meta: Record, file: Artifact, bundle: Bundle | None, folder: Artifact | None, findings: list[Finding]):
        if meta.graph_def is None:
            raise Damaged("it holds no graph", where=file.where)
        self.meta, self.graph_def, self.file, self.bundle, self.folder, self.findings = meta, meta.graph_def, file, bundle, folder, findings
        restore = meta.saver_def.restore_op_name if meta.saver_def is not None else ""
        self.keys = keys_of_variables(self.graph_def, restore) if restore and bundle is not None else {}

    def content(self, node: Record) -> Any:
        """The tensor of a variable, with its key."""
        if node.op not in HANDLES or self.bundle is None:
            return None
        place = next(iter(self.keys.get(node.name, ())), None)
        if place is None and self.meta.saver_def is None:
            shared = bytes(node.attr["shared_name"].s).decode("utf-8", "replace") if "shared_name" in node.attr else ""
            place = next((Place(name) for name in (shared, node.name) if name and name in self.bundle), None)
        if place is None or place.key not in self.bundle:
            return None
        return stored_part(self.bundle, place, node.name), {"key": place.key}

    def model(self, signature: str | None) -> Model:
        from isomorph.model import Model, Signature
        signatures = {name: item for name, item in self.meta.signature_def.items() if name not in INITIALISERS}
        if signature is not None and signature not in signatures:
            raise Usage(f"there is no signature {signature!r}", where=self.file.where, hint="it has " + (", ".join(sorted(signatures)) or "none"))
        name = signature or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else next(iter(sorted(signatures)), None))
        if name is None:
            return plain_model(self.graph_def, self.file, Model, self.content, self.findings)
        self.name_assets()
        inputs, outputs = (dict(sorted((key, info.name) for key, info in items.items())) for items in (signatures[name].inputs, signatures[name].outputs))
        decoder = Decoder(self.graph_def, self.file.where, self.file.limits, content=self.content)
        targets = self.targets()
        graph = decoder.model(list(inputs.values()), list(outputs.values()), name, targets)
        fed = {key: str(value.name) for key, value in zip(inputs, graph.graph.inputs, strict=False)}
        self.shapes(signatures[name], graph.graph)
        given = {key: str(value.name) for key, value in zip(outputs, graph.graph.outputs, strict=True)}
        others = sorted(set(signatures) - {name})
        if others and signature is None:
            sentence = f"the signatures {', '.join(others[:8])} are not read"
            self.findings.append(Finding("tf.signatures", Severity.LOW, self.file.where, sentence, "choose one with --signature"))
        metadata: dict[str, Any] = {"nodes": len(self.graph_def.node) + sum(len(function.node_def) for function in decoder.library.values()),
                                    "signatures": sorted(signatures), "init": targets, "assets": self.assets(graph.graph),
                                    "tables": self.tables()}
        findings = [*self.findings, *_tf_effects.findings(self.graph_def, self.file.where)]
        return Model(graph, "tf", [Signature(name, fed, given)], metadata, findings)

    def shapes(self, signature: Record, graph: Any) -> None:
        """The signature may know more of the shape of an input than its placeholder."""
        import onnx_ir as ir
        for info, value in zip((info for _, info in sorted(signature.inputs.items())), graph.inputs, strict=False):
            shape = info.tensor_shape
            if shape is not None and not shape.unknown_rank and value.shape is None:
                value.shape = ir.Shape([dim.size if dim.size >= 0 else f"{value.name}_{axis}" for axis, dim in enumerate(shape.dim)])

    def tables(self) -> dict[str, Any]:
        """Tables that a run could change, whose keys and values stand in the checkpoint, by the names that they share."""
        found = {}
        for node in self.graph_def.node:
            if self.bundle is not None and node.op in TABLES and len(places := self.keys.get(node.name, ())) == 2:
                shared = bytes(node.attr["shared_name"].s).decode("utf-8", "replace") if "shared_name" in node.attr else ""
                found[shared or node.name] = tuple(stored_part(self.bundle, place, node.name).numpy() for place in places)
        return found

    def targets(self) -> list[str]:
        """The nodes that fill tables before the first run."""
        found = []
        for name in INITIALISERS[:1]:
            found += [info.name for info in (self.meta.signature_def[name].outputs.values() if name in self.meta.signature_def else ())]
        for name in INIT_COLLECTIONS:
            collection = self.meta.collection_def.get(name)
            if collection is not None and collection.node_list is not None:
                found += list(collection.node_list.value)
            elif collection is not None and collection.any_list is not None:
                found += [_node_of(item.value) for item in collection.any_list.value]
        known = {node.name: node for node in self.graph_def.node}
        names = [split_reference(item)[0] for item in found]
        return [name for name in dict.fromkeys(names) if name in known]

    def name_assets(self) -> None:
        """TensorFlow 2 feeds the paths of its files to placeholders while it loads them: they become the names of the files."""
        kinds, nodes = schema(), {node.name: node for node in self.graph_def.node}
        for item in self.meta.asset_file_def:
            node = nodes.get(split_reference(item.tensor_info.name)[0]) if item.tensor_info is not None else None
            if node is not None and node.op.startswith("Placeholder"):
                text = kinds["TensorProto"](dtype=TYPES["string"], tensor_shape=kinds["TensorShapeProto"](), string_val=[item.filename.encode()])
                node.op, node.attr = "Const", {"dtype": kinds["AttrValue"](type=TYPES["string"]), "value": kinds["AttrValue"](tensor=text)}

    def assets(self, graph: Any) -> dict[str, Any]:
        """The lines of the files that tables are filled from. The graph's constant with their path becomes the name of the file."""
        found: dict[str, Any] = {}
        for item in [*self.meta.asset_file_def, *self.listed_assets()]:
            file = self.asset(item.filename)
            if file is None:
                self.findings.append(Finding("tf.asset", Severity.MEDIUM, self.file.where, f"the file assets/{item.filename} is not there"))
                continue
            found[item.filename] = bytes(file.view).splitlines() if file.size <= MOST_ASSET_BYTES else []
            name = split_reference(item.tensor_info.name)[0] if item.tensor_info is not None else ""
            value = graph.initializers.get(name)
            if value is not None:
                from isomorph.tensors import array_tensor
                value.const_value = array_tensor(item.filename, name)
        return found

    def listed_assets(self) -> list[Record]:
        """Where TensorFlow 1 lists them."""
        collection = self.meta.collection_def.get("saved_model_assets")
        anys = collection.any_list.value if collection is not None and collection.any_list is not None else ()
        return [protobuf.read(item.value, schema()["AssetFileDef"], self.file.limits, self.file.where) for item in anys]

    def asset(self, name: str) -> Artifact | None:
        assets = self.folder.child("assets") if self.folder is not None else None
        try:
            return assets.child(name) if assets is not None else None
        except IsomorphError:
            self.findings.append(Finding("tf.asset", Severity.HIGH, self.file.where, f"an asset leads outside the model: {name!r}"))
            return None


def _node_of(value: Any) -> str:
    """The first text field of a message."""
    from isomorph.wire import protobuf_head
    view = memoryview(value)
    return protobuf_head.text(view, protobuf_head.outline(view, most=4).first(1))
