"""Makes `src/isomorph/wire/schemas/tflite.txt` from the schema classes that the LiteRT wheel (`pip install ai-edge-litert`) carries.

    python tools/make_tflite_schema.py > src/isomorph/wire/schemas/tflite.txt

The generated Python classes know the slot, the wire type and the default of every field, and the values of every enumeration, but neither which
enumeration a field holds nor the alignment of byte vectors: the two tables below add that, from `schema.fbs`.
"""
from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

SCALARS = {"Bool": "bool", "Int8": "byte", "Uint8": "ubyte", "Int16": "short", "Uint16": "ushort", "Int32": "int", "Uint32": "uint",
           "Int64": "long", "Uint64": "ulong", "Float32": "float", "Float64": "double"}
UNIONS = {"QuantizationDetails", "SparseIndexVector", "BuiltinOptions", "BuiltinOptions2"}
WIDTH = {"BuiltinOperator": "int", "StablehloPrecisionConfig": "uint", "StablehloComparisonDirection": "uint", "StablehloComparisonType": "uint",
         "RngAlgorithm": "byte", "ReduceWindowFunction": "int"}                      # byte unless it stands here
ENUM_OF = {                                                                         # field, or Table.field, -> enumeration
    "padding": "Padding", "fused_activation_function": "ActivationFunctionType", "Tensor.type": "TensorType", "VariantSubType.type": "TensorType",
    "quantized_bias_type": "TensorType", "in_data_type": "TensorType", "out_data_type": "TensorType", "output_type": "TensorType", "out_type": "TensorType",
    "idx_out_type": "TensorType", "key_dtype": "TensorType", "value_dtype": "TensorType", "LSHProjectionOptions.type": "LSHProjectionType",
    "weights_format": "FullyConnectedOptionsWeightsFormat", "kernel_type": "LSTMKernelType", "combiner": "CombinerType", "mode": "MirrorPadMode",
    "DimensionMetadata.format": "DimensionType", "OperatorCode.builtin_code": "BuiltinOperator", "custom_options_format": "CustomOptionsFormat",
    "composite_attributes_format": "CustomOptionsFormat", "reduce_function": "ReduceWindowFunction", "algorithm": "RngAlgorithm",
    "comparison_direction": "StablehloComparisonDirection", "compare_type": "StablehloComparisonType",
}
ALIGNED = {"Buffer.data": 16, "CustomQuantization.custom": 16, "Uint16Vector.values": 4, "Uint8Vector.values": 4}
NOT_PADDING = {"StablehloConvolutionOptions.padding", "StablehloReduceWindowOptions.padding"}     # vectors of the same name


def snake(name: str) -> str:
    """`StrideW` -> `stride_w`. The schema writes `seed2` but `builtin_options_2`, which the accessors do not tell apart."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower().replace("builtin_options2", "builtin_options_2")


def enumerations(tree: ast.Module) -> dict[str, dict[str, int]]:
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            values = {item.targets[0].id: ast.literal_eval(item.value) for item in node.body
                      if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name) and item.targets[0].id != "__slots__"}
            if values and not any(isinstance(item, ast.FunctionDef) for item in node.body):
                found[node.name] = values
    return found


def tables(tree: ast.Module, source: str) -> dict[str, dict[int, tuple[str, str, str]]]:
    """Table -> slot -> (field, wire type, default)."""
    names = [match[1] for match in re.finditer(r"^def (\w+)Start\(builder\):", source, re.M)]
    found: dict[str, dict[int, tuple[str, str, str]]] = {name: {} for name in names}
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        splits = [(node.name[:place.start()], node.name[place.end():]) for place in re.finditer("Add", node.name)]      # a table's own name may hold "Add"
        match = next(((table, field) for table, field in splits if table in found and field), None)
        if match is None:
            continue
        call = node.body[0].value
        slot, default = call.args[0].value, call.args[2]
        wire = re.fullmatch(r"Prepend(\w+)Slot", call.func.attr)[1]
        found[match[0]][slot] = (match[1], wire, ast.unparse(default))
    return found


def reference(table: str, field: str, tree_text: str) -> str:
    """The type of an offset field, from the accessors of its class: a string, a union, a vector, or a table."""
    body = re.search(rf"^class {table}\(object\):\n(.*?)(?=^class |^def )", tree_text, re.S | re.M)[1]
    method = re.search(rf"^    def {field}\(self(.*?)\):\n(.*?)(?=^    # |\Z)", body, re.S | re.M)
    if f"def {field}Length(self)" in body:
        scalar = re.search(r"number_types\.(\w+)Flags, a \+", method[2])
        child = re.search(r"obj = (\w+)\(\)", method[2])
        return f"[{SCALARS[scalar[1]] if scalar else child[1] if child else 'string'}]"
    child = re.search(r"obj = (\w+)\(\)", method[2])
    if child:
        return "union" if child[1] == "Table" else child[1]
    return "string" if "self._tab.String" in method[2] else "union"


def type_of(table: str, field: str, wire: str, default: str, accessor: str, source: str, enums: dict[str, dict[str, int]]) -> str:
    key = f"{table}.{field}"
    if wire == "UOffsetTRelative":
        kind = reference(table, accessor, source)
        if kind == "union":
            kind = {"details": "QuantizationDetails", "array_segments": "SparseIndexVector", "array_indices": "SparseIndexVector",
                    "builtin_options": "BuiltinOptions", "builtin_options_2": "BuiltinOptions2"}[field]
        return kind + (f"@{ALIGNED[key]}" if key in ALIGNED else "")
    enum = ENUM_OF.get(key) or (ENUM_OF.get(field) if key not in NOT_PADDING else None)
    plain = {"False": "0", "True": "1", "0.0": "0"}.get(default, default)
    if enum:
        names = {value: name for name, value in enums[enum].items()}
        return enum + (f"={names[int(plain)]}" if plain != "0" else "")
    return SCALARS[wire] + (f"={plain}" if plain != "0" else "")


def main() -> None:
    spec = importlib.util.find_spec("ai_edge_litert")
    source = (Path(spec.submodule_search_locations[0]) / "schema_py_generated.py").read_text()
    tree = ast.parse(source)
    enums, out = enumerations(tree), []
    for name, values in enums.items():
        words, following = [], 0
        for word, number in sorted(values.items(), key=lambda pair: pair[1]):
            words.append(word if number == following else f"{word}={number}")
            following = number + 1
        out.append(f"union {name}: {' '.join(words)}" if name in UNIONS else f"enum {name} {WIDTH.get(name, 'byte')}: {' '.join(words)}")
    for table, fields in tables(tree, source).items():
        words = []
        for slot in range(max(fields, default=-1) + 1):
            if slot not in fields:
                words.append("-")
                continue
            accessor, wire, default = fields[slot]
            field = snake(accessor)
            if slot + 1 in fields and fields[slot + 1][0] + "Type" == accessor and fields[slot + 1][1] == "UOffsetTRelative":
                continue                                                                # the type slot of a union belongs to its value
            words.append(f"{field}:{type_of(table, field, wire, default, accessor, source, enums)}")
        out.append(f"table {table}: {' '.join(words)}".rstrip())
    print("# The FlatBuffers schema of TensorFlow Lite, a line a type; made by tools/make_tflite_schema.py.")
    print("# table NAME: FIELD:TYPE[=DEFAULT][@ALIGNMENT] in the order of the slots, - for a slot no longer used; a field of union type takes two slots.")
    print("identifier TFL3")
    print("\n".join(out))


if __name__ == "__main__":
    main()
