"""A SavedModel of TensorFlow 2 from a graph of the dialect "tf": what `tf.saved_model.load`, the loader of sessions and servers, the TFLite converter and
Keras' TFSMLayer all take.

    saved_model.pb                       signatures call functions; the functions take what is fed and the variables
    variables/variables.{index,data-..}  the weights, under NAME/.ATTRIBUTES/VARIABLE_VALUE, and the graph of objects that `load` restores them by
    fingerprint.pb

Every signature is a function of the part of the graph between its inputs and outputs. Weights are variables, so that they can be trained and so that no
message becomes longer than 2 GB. The nodes `save/...` are the ones that sessions save and restore by.
"""
from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Iterable, Sequence
from typing import Any

import onnx_ir as ir

from isomorph.formats._graphdef_writer import PRODUCER, Encoder, type_of_value
from isomorph.formats._tf_tensors import TYPE_OF_ELEMENT, schema, shape_record
from isomorph.model import Model, Signature, unused
from isomorph.report import Finding, Severity
from isomorph.tensors import dims_of, type_of
from isomorph.wire import protobuf
from isomorph.wire.protobuf import Record
from isomorph.wire.tensor_bundle import Stored
from isomorph.wire.tf_operators import TYPES

METHOD = "tensorflow/serving/predict"
TENSORFLOW = "2.21.0"
KEY = "/.ATTRIBUTES/VARIABLE_VALUE"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
LEAST_TRAINED, LEAST_KEPT = 16, 1 << 16            # elements of a float weight, bytes of any other constant, from which it becomes a variable
FEED = "serving_default_"


class Variable:
    """A weight that lives in the bundle: `name` is that of its node and attribute, `handle` stands for it while the graph is encoded."""

    def __init__(self, name: str, tensor: Any, trainable: bool):
        self.name, self.tensor, self.trainable = name, tensor, trainable
        self.nbytes = int(tensor.nbytes)
        self.dims = dims_of(self.tensor)
        self.kind = TYPE_OF_ELEMENT[type_of(self.tensor)]

    @property
    def key(self) -> str:
        return self.name + KEY


def is_variable(value: ir.Value) -> bool:
    """Whether a constant is a weight: a float of at least one axis that is large enough, or anything large."""
    tensor: Any = value.const_value
    if tensor is None or value.dtype == ir.DataType.STRING or not dims_of(tensor):
        return False
    return (value.dtype in FLOATS and tensor.size >= LEAST_TRAINED) or tensor.nbytes >= LEAST_KEPT


class Writer:
    """One SavedModel being put together."""

    def __init__(self, model: Model):
        self.model, self.kinds, self.encoder = model, schema(), Encoder()
        self.findings: list[Finding] = []
        self.variables: dict[ir.Value, Variable] = {}
        self.nodes: list[Record] = []
        self.parts: list[ir.Graph] = []                   # the encoder knows values by identity, so they must live as long as it does
        for called in model.ir.functions.values():
            self.encoder.functions[called.name] = self.encoder.function(called.graph, called.name, called.meta.get("results"), called.meta.get("control"))
        taken: set[str] = set()
        for value in model.graph.initializers.values():
            if is_variable(value) and value.uses() and "tf_type" not in value.meta:
                name = _identifier(value.name or "variable", taken)
                self.variables[value] = Variable(self.encoder.unique(name), value.const_value, value.dtype in FLOATS)

    # ---- saved_model.pb

    def saved_model(self) -> Record:
        """The whole of saved_model.pb."""
        kinds = self.kinds
        self.nodes += [self.node("VarHandleOp", variable.name, [], dtype=variable.kind, shape=variable.dims, shared_name=variable.name, container="")
                       for variable in self.variables.values()]
        signatures = {signature.name: self.signature(signature) for signature in self.model.signatures}
        saver = self.saver()
        library = kinds["FunctionDefLibrary"](function=list(self.encoder.functions.values()))
        graph = kinds["GraphDef"](node=self.nodes, library=library, versions=kinds["VersionDef"](producer=PRODUCER))
        about = kinds["MetaInfoDef"](tags=["serve"], tensorflow_version=TENSORFLOW, meta_graph_version="", stripped_default_attrs=True)
        stated = {name: made for name, (made, _) in signatures.items()}
        objects = self.objects([spec for _, spec in signatures.values()])
        meta = kinds["MetaGraphDef"](meta_info_def=about, graph_def=graph, saver_def=saver, signature_def=stated, object_graph_def=objects)
        return kinds["SavedModel"](saved_model_schema_version=1, meta_graphs=[meta])

    def node(self, op_type: str, name: str, inputs: Sequence[str], **attributes: Any) -> Record:
        return self.encoder.record(op_type, name, list(inputs), attributes)

    def signature(self, signature: Signature) -> tuple[Record, dict[str, Any]]:
        """The SignatureDef, whose tensors are placeholders and results of one call, and what the object of the signature says of its function."""
        kinds, unique = self.kinds, self.encoder.unique
        named = self.named(signature)
        graph, handles = self.part(signature, named)
        self.parts.append(graph)
        arguments = dict(zip(sorted(named), graph.inputs, strict=False))
        outputs = dict(zip(sorted(signature.outputs), graph.outputs, strict=True))
        function = unique(f"__inference_{signature.name}")
        self.encoder.functions[function] = self.encoder.function(graph, function, [f"output_{place}" for place in range(len(outputs))])
        feeds = {}
        for name, value in arguments.items():
            feeds[name] = unique(f"{signature.name}_{name}")
            self.nodes.append(self.node("Placeholder", feeds[name], [], dtype=type_of_value(value), shape=_dims(value)))
        types = [type_of_value(value) for value in graph.outputs]
        call = unique("StatefulPartitionedCall")
        self.nodes.append(self.node("StatefulPartitionedCall", call, [*feeds.values(), *(variable.name for variable in handles)], f=function, Tout=types,
                                    Tin=[type_of_value(value) for value in graph.inputs], config_proto="", executor_type="", config=""))
        made = kinds["SignatureDef"](
            method_name=METHOD, inputs={name: self.info(f"{feeds[name]}:0", value) for name, value in arguments.items()},
            outputs={name: self.info(f"{call}:{place}", value) for place, (name, value) in enumerate(outputs.items())})
        return made, {"name": signature.name, "function": function, "arguments": arguments, "outputs": outputs, "handles": handles}

    def info(self, name: str, value: ir.Value) -> Record:
        return self.kinds["TensorInfo"](name=name, dtype=TYPES[type_of_value(value)], tensor_shape=shape_record(_dims(value)))

    def named(self, signature: Signature) -> dict[str, str]:
        """Argument name -> value name. Arguments are parameters of a Python function when the model is loaded, which only takes identifiers."""
        found: dict[str, str] = {}
        taken: set[str] = set()
        for name, value in signature.inputs.items():
            fitting = _identifier(name.removesuffix(":0"), taken)
            if fitting != name:
                self.findings.append(Finding("names.changed", Severity.INFO, name, f"the input {name!r} of a signature is called {fitting!r}"))
            found[fitting] = value
        return found

    def part(self, signature: Signature, inputs: dict[str, str]) -> tuple[ir.Graph, list[Variable]]:
        """What a signature computes as a graph of its own: sorted arguments, then the handles of the variables it reads; and those variables.

        `inputs` are the values of its arguments. `load` hands arguments over and takes results apart in the order of their names.
        """
        graph = self.model.graph
        values = {value.name: value for value in (*graph.inputs, *graph.initializers.values(), *(out for node in graph for out in node.outputs))}
        values |= {value.name: value for value in graph.outputs}
        results = [values[signature.outputs[name]] for name in sorted(signature.outputs)]
        fed = [values[inputs[name]] for name in sorted(inputs)]
        nodes = _needed(graph, results, set(fed))
        read: dict[ir.Value, None] = {}
        for node in nodes:
            read.update(dict.fromkeys(value for value in node.inputs if value in self.variables))
        read.update(dict.fromkeys(value for value in results if value in self.variables))
        swap: dict[ir.Value, ir.Value] = {}
        made_nodes: list[ir.Node] = []
        handles: list[ir.Value] = []
        for value in fed:
            swap[value] = ir.Value(name=value.name, type=value.type, shape=value.shape)
            swap[value].meta.update(value.meta)
        for value in read:
            handle = ir.Value(name=f"{self.variables[value].name}_handle")
            handle.meta["tf_type"] = "resource"
            reading = ir.node("ReadVariableOp", [handle], domain="tf", name=f"{self.variables[value].name}/read")
            reading.outputs[0].type, reading.outputs[0].shape = value.type, value.shape
            swap[value] = reading.outputs[0]
            handles.append(handle)
            made_nodes.append(reading)
        constants: list[ir.Value] = []
        for node in nodes:
            made_nodes.append(_copied(node, swap, graph, constants))
        outputs = [_own(swap.get(value) or _constant(value, swap, constants), swap, set(fed), made_nodes) for value in results]
        whole = ir.Graph([*(swap[value] for value in fed), *handles], outputs, nodes=made_nodes, initializers=constants, name=signature.name)
        return whole, [self.variables[value] for value in read]

    def saver(self) -> Record | None:
        """The nodes that sessions save and restore variables by; None where there are none."""
        if not self.variables:
            return None
        variables = list(self.variables.values())
        types = [variable.kind for variable in variables]
        texts = {"keys": [variable.key for variable in variables], "slices": [""] * len(variables)}
        self.nodes.append(self.node("Placeholder", "save/file", [], dtype="string", shape=()))
        for label, words in texts.items():
            tensor = self.kinds["TensorProto"](dtype=TYPES["string"], tensor_shape=shape_record((len(words),)), string_val=[word.encode() for word in words])
            attr = {"dtype": self.kinds["AttrValue"](type=TYPES["string"]), "value": self.kinds["AttrValue"](tensor=tensor)}
            self.nodes.append(self.kinds["NodeDef"](name=f"save/{label}", op="Const", attr=attr))
        self.nodes.append(self.node("RestoreV2", "save/restored", ["save/file", "save/keys", "save/slices"], dtypes=types))
        for place, variable in enumerate(variables):
            self.nodes.append(self.node("AssignVariableOp", f"save/assign_{place}", [variable.name, f"save/restored:{place}"], dtype=variable.kind))
            self.nodes.append(self.node("ReadVariableOp", f"save/read_{place}", [variable.name], dtype=variable.kind))
        self.nodes.append(self.node("NoOp", "save/restore_all", [f"^save/assign_{place}" for place in range(len(variables))]))
        reads = [f"save/read_{place}" for place in range(len(variables))]
        self.nodes.append(self.node("SaveV2", "save/saved", ["save/file", "save/keys", "save/slices", *reads], dtypes=types))
        self.nodes.append(self.node("Identity", "save/control", ["save/file", "^save/saved"], T="string"))
        return self.kinds["SaverDef"](filename_tensor_name="save/file:0", save_tensor_name="save/control:0", restore_op_name="save/restore_all", version=2)

    # ---- objects: node 0 is the model, then variables, lists of them, the map of signatures, one function each

    def layout(self) -> tuple[list[tuple[str, int]], list[int], int]:
        """The children of the model, where the variables that are trained are, and the place of the map of signatures."""
        variables = list(self.variables.values())
        places = {variable.name: place for place, variable in enumerate(variables, 1)}
        lists = len(variables) + 1
        children = [*places.items(), ("variables", lists), ("trainable_variables", lists + 1), ("signatures", lists + 2)]
        return children, [places[variable.name] for variable in variables if variable.trainable], lists

    def objects(self, signatures: list[dict[str, Any]]) -> Record:
        """The SavedObjectGraph."""
        kinds = self.kinds
        children, trained, lists = self.layout()
        nodes = [self.user_object("_generic_user_object", children)]
        nodes += [kinds["SavedObject"](variable=kinds["SavedVariable"](dtype=TYPES[variable.kind], shape=shape_record(variable.dims), name=variable.name,
                                                                       trainable=variable.trainable))
                  for variable in self.variables.values()]
        for places in (range(1, lists), trained):
            nodes.append(self.user_object("trackable_list_wrapper", [(str(index), place) for index, place in enumerate(places)]))
        nodes.append(self.user_object("signature_map", [(spec["name"], lists + 3 + index) for index, spec in enumerate(signatures)]))
        places_of = {name: place for name, place in children}
        functions = {}
        for spec in signatures:
            bare = kinds["SavedBareConcreteFunction"](concrete_function_name=spec["function"], argument_keywords=list(spec["arguments"]),
                                                      allowed_positional_arguments=min(len(spec["arguments"]), 1))
            nodes.append(kinds["SavedObject"](bare_concrete_function=bare))
            functions[spec["function"]] = kinds["SavedConcreteFunction"](
                bound_inputs=[places_of[variable.name] for variable in spec["handles"]], output_signature=self.structure(spec["outputs"]),
                canonicalized_input_signature=self.value(tuple_value=[self.value(tuple_value=[]), self.structure(spec["arguments"])]))
        return kinds["SavedObjectGraph"](nodes=nodes, concrete_functions=functions)

    def user_object(self, identifier: str, children: Iterable[tuple[str, int]]) -> Record:
        kinds = self.kinds
        version = kinds["VersionDef"](producer=1, min_consumer=1)
        return kinds["SavedObject"](user_object=kinds["SavedUserObject"](identifier=identifier, version=version),
                                    children=[kinds["ObjectReference"](node_id=place, local_name=name) for name, place in children])

    def value(self, tuple_value: list[Record]) -> Record:
        return self.kinds["StructuredValue"](tuple_value=self.kinds["ValueList"](values=tuple_value))

    def structure(self, values: dict[str, ir.Value]) -> Record:
        """A dictionary of tensors."""
        kinds = self.kinds
        specs = {name: kinds["StructuredValue"](tensor_spec_value=kinds["TensorSpec"](name=name, shape=shape_record(_dims(value)),
                                                                                      dtype=TYPES[type_of_value(value)]))
                 for name, value in values.items()}
        return kinds["StructuredValue"](dict_value=kinds["DictValue"](fields=specs))

    def checkpoint(self) -> list[Stored]:
        """The tensors of the bundle: the variables, and the graph of objects that says which is which."""
        kinds = self.kinds
        children, trained, lists = self.layout()
        signatures = len(self.model.signatures)

        def trackable(links: Iterable[tuple[str, int]], attributes: Sequence[Record] = ()) -> Record:
            return kinds["TrackableObject"](children=[kinds["ObjectReference"](node_id=place, local_name=name) for name, place in links],
                                            attributes=list(attributes))
        nodes = [trackable(children)]
        nodes += [trackable((), [kinds["SerializedTensor"](name="VARIABLE_VALUE", full_name=variable.name, checkpoint_key=variable.key)])
                  for variable in self.variables.values()]
        nodes += [trackable([(str(index), place) for index, place in enumerate(places)]) for places in (range(1, lists), trained)]
        nodes.append(trackable([(signature.name, lists + 3 + index) for index, signature in enumerate(self.model.signatures)]))
        nodes += [trackable(())] * signatures
        graph = protobuf.dumps(kinds["TrackableObjectGraph"](nodes=nodes))
        stored = [Stored(variable.key, TYPES[variable.kind], variable.dims, Bytes(variable.tensor)) for variable in self.variables.values()]
        return [*stored, Stored(OBJECT_GRAPH, TYPES["string"], (), [graph])]


class Bytes:
    """The data of a tensor, asked for while it is written."""

    def __init__(self, tensor: Any):
        self.tensor = tensor

    def chunks(self) -> Iterable[Any]:
        return self.tensor.chunks() if hasattr(self.tensor, "chunks") else [self.tensor.tobytes()]


def fingerprint(saved_model: Record, index: bytes) -> bytes:
    """FingerprintDef (tensorflow/core/protobuf/fingerprint.proto). TensorFlow's own numbers are FarmHash of a graph in a normal form; these are the first
    eight bytes of SHA-256 of what is stored. Loaders only tell files apart by them."""
    meta = saved_model.meta_graphs[0]
    signatures = (meta.signature_def[name] for name in sorted(meta.signature_def))
    numbers = [_digest([part]) for part in (saved_model, meta.graph_def)] + [_digest(signatures), _digest([meta.object_graph_def])]
    checkpoint = int.from_bytes(hashlib.sha256(index).digest()[:8], "little")
    record = FINGERPRINT["FingerprintDef"](saved_model_checksum=numbers[0], graph_def_program_hash=numbers[1], signature_def_hash=numbers[2],
                                           saved_object_graph_hash=numbers[3], checkpoint_hash=checkpoint, version=FINGERPRINT["VersionDef"](producer=1),
                                           uuid=str(numbers[0] ^ checkpoint))
    return protobuf.dumps(record)


class _Hash:
    """A file that only remembers the checksum of what was written to it."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return len(data)


def _digest(records: Iterable[Record]) -> int:
    file: Any = _Hash()
    for record in records:
        protobuf.write(record, file)
    return int.from_bytes(file.hash.digest()[:8], "little")


FINGERPRINT = protobuf.parse_schema("""\
FingerprintDef
  1 saved_model_checksum uint64
  2 graph_def_program_hash uint64
  3 signature_def_hash uint64
  4 saved_object_graph_hash uint64
  5 checkpoint_hash uint64
  6 version VersionDef
  7 uuid string
VersionDef
  1 producer int32
""")


def _identifier(name: str, taken: set[str]) -> str:
    """A name that Python takes for a parameter or an attribute, used once."""
    clean = re.sub(r"\W", "_", name, flags=re.ASCII)
    clean = f"v_{clean}" if not clean or clean[0].isdigit() or keyword.iskeyword(clean) or clean.startswith("_") else clean
    return unused(clean, taken)


def _dims(value: ir.Value) -> tuple[int, ...] | None:
    return None if value.shape is None else tuple(dim if isinstance(dim, int) else -1 for dim in value.shape)


def _needed(graph: ir.Graph, results: Sequence[ir.Value], fed: set[ir.Value]) -> list[ir.Node]:
    """The nodes that the results need, in the order of the graph."""
    wanted: set[ir.Node] = set()
    stack = [value for value in results if value not in fed]
    while stack:
        node = stack.pop().producer()
        if node is not None and node not in wanted:
            wanted.add(node)
            stack += [value for value in node.inputs if value is not None and value not in fed]
    return [node for node in graph if node in wanted]


def _copied(node: ir.Node, swap: dict[ir.Value, ir.Value], graph: ir.Graph, constants: list[ir.Value]) -> ir.Node:
    """A node over the values of another graph; `swap` learns its outputs."""
    inputs = [None if value is None else swap.get(value) or _constant(value, swap, constants) for value in node.inputs]
    made = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs), name=node.name)
    made.meta.update(node.meta)
    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        new.meta.update(old.meta)
        swap[old] = new
    return made


def _constant(value: ir.Value, swap: dict[ir.Value, ir.Value], constants: list[ir.Value]) -> ir.Value:
    """A constant of a graph in another one; its tensor is shared."""
    made = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
    made.meta.update(value.meta)
    swap[value] = made
    constants.append(made)
    return made


def _own(value: ir.Value, swap: dict[ir.Value, ir.Value], fed: set[ir.Value], nodes: list[ir.Node]) -> ir.Value:
    """An output that is an argument needs a node of its own."""
    if value.producer() is not None:
        return value
    copy = ir.node("Identity", [value], domain="tf", name=f"{value.name}/out")
    copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
    nodes.append(copy)
    return copy.outputs[0]
