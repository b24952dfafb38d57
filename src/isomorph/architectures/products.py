"""Products with the weights of a language model, as ONNX nodes: float weights as they are stored, blocks of ggml as codes and scales.

W = S (q - z) + (z S - M) for a block of scale S, codes q and minimum M, so a product with W is `MatMulNBits` with the codes, whose zero point z is fixed, and a
small one with the sums of each block. What comes out differs from the product with the decoded weights only in the order of the sums.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from isomorph.architectures import activations
from isomorph.quant.decode import Grouped, codes_of
from isomorph.quant.tensor import QuantizedTensor
from isomorph.tensors import NUMBER, ComputedTensor, array_tensor, dims_of, type_of

CONTRIB = "com.microsoft"
FLOAT, UINT8 = NUMBER["FLOAT"], NUMBER["UINT8"]
LEAST_GROUP = 16                        # codes that share a scale, as MatMulNBits asks for
NIBBLE, BYTE = 4, 8
INTEGERS = 4                            # accuracy_level of kernels that multiply integers


@dataclass(frozen=True)
class Codes:
    """A matrix [rows, columns] as unsigned codes of `bits` bits; `group` neighbours share a scale. `offset` is what each group adds, None for none."""

    bits: int
    group: int
    codes: Any
    scale: Any
    offset: Any
    minimum: Any                        # what each group adds where codes count from `nothing`
    nothing: int = 0

    @property
    def zero(self) -> int:
        """The code that stands for zero, which MatMulNBits takes where none is given."""
        return 1 << self.bits - 1


def coded(tensor: Any) -> Codes | None:
    """Blocks of ggml as codes and scales, computed when they are written; None for what has none that `MatMulNBits` takes."""
    if not isinstance(tensor, QuantizedTensor) or tensor.swapped or len(tensor.dims) != 2:
        return None
    kind, (rows, columns) = tensor.kind, tensor.dims
    sample = codes_of(kind.name, tensor.blocks[:kind.bytes])
    if sample is None or np.any(sample.codes != np.round(sample.codes)):
        return None
    group = kind.elements // sample.scale.shape[1]
    if group < LEAST_GROUP or group & group - 1:
        return None
    bits, centre = RANGES.get(kind.name, (BYTE, 0))
    groups = columns // group

    def parts() -> Grouped:
        found = codes_of(kind.name, tensor.blocks)
        assert found is not None
        return found

    def codes() -> np.ndarray:
        unsigned = (parts().codes.astype(np.int16) + ((1 << bits - 1) - centre)).astype(np.uint8).reshape(rows, groups, group)
        return unsigned if bits == BYTE else unsigned[..., ::2] | unsigned[..., 1::2] << 4

    def scale() -> np.ndarray:
        return parts().scale.astype(np.float32).reshape(rows, groups)

    def offset() -> np.ndarray:
        found = parts()
        minimum = 0 if found.offset is None else found.offset
        return (centre * found.scale - minimum).astype(np.float32).reshape(rows, groups)

    def least() -> np.ndarray:
        return (0 - np.asarray(parts().offset)).astype(np.float32).reshape(rows, groups)

    made = ComputedTensor(f"{tensor.name}.codes", UINT8, (rows, groups, group * bits // 8), codes, ())
    scales = ComputedTensor(f"{tensor.name}.scale", FLOAT, (rows, groups), scale, ())
    shift, minimum = (None if sample.offset is None else ComputedTensor(f"{tensor.name}.{name}", FLOAT, (rows, groups), function, ())
                      for name, function in (("offset", offset), ("minimum", least)))
    return Codes(bits, group, made, scales, shift, minimum, (1 << bits - 1) - centre)


# Bits of the codes, and the code that becomes their zero. What is not named has signed codes of eight bits.
RANGES = {"Q4_0": (NIBBLE, 0), "Q4_1": (NIBBLE, 8), "Q4_K": (NIBBLE, 8), "Q2_K": (NIBBLE, 2), "Q5_1": (BYTE, 16), "Q5_K": (BYTE, 16),
          "Q2_0": (NIBBLE, 0), "TQ1_0": (NIBBLE, 0), "TQ2_0": (NIBBLE, 0), "Q3_K": (NIBBLE, 0)}


class Nodes:
    """`op.MatMul(x, w)` appends a node and answers its output, or the tuple of them."""

    def __init__(self) -> None:
        self.tape = Tape()

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        def make(*inputs: ir.Value | None, _domain: str = "", _outputs: int = 1, **attributes: Any) -> Any:
            if _outputs == 1:
                return self.tape.op(op_type, inputs, attributes, domain=_domain)
            return tuple(self.tape.op_multi_out(op_type, inputs, attributes, num_outputs=_outputs, domain=_domain))
        return make


class Products:
    """Appends nodes that read the weights of a checkpoint. `kept` counts the products that compute with codes. With `rounded`, what blocks are multiplied with
    is rounded as ggml rounds it (see `activations`)."""

    def __init__(self, weights: Any, *, quantised: bool = True, rounded: bool = False):
        self.op = Nodes()
        self.weights, self.quantised, self.rounded = weights, quantised, rounded
        self.empty = False                      # whether there may be no tokens
        self.activations: dict[tuple[int, bool], activations.Rounded] = {}
        self.initializers: dict[str, ir.Value] = {}
        self.kept = 0

    def stored(self, tensor: Any, name: str) -> ir.Value:
        """A tensor as an initializer; each name once."""
        if name not in self.initializers:
            value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(ir.DataType(type_of(tensor))), shape=ir.Shape(dims_of(tensor)))
            self.initializers[name] = value
        return self.initializers[name]

    def constant(self, array: Any, dtype: Any = np.int64) -> ir.Value:
        """A small array as an initializer; equal ones are one."""
        array = np.asarray(array, dtype)
        name = f"constant.{array.dtype.name}." + "_".join(map(str, (*array.shape, *array.reshape(-1)))) if array.size <= LEAST_GROUP else ""
        return self.stored(array_tensor(array), name or f"constant.{len(self.initializers)}")

    def vector(self, name: str) -> ir.Value:
        """A weight as float32."""
        tensor = self.weights[name]
        value = self.stored(decoded(tensor), name)
        return self.widened(value)

    def widened(self, value: ir.Value) -> ir.Value:
        return value if value.dtype == ir.DataType.FLOAT else self.op.Cast(value, to=FLOAT)

    def product(self, x: ir.Value, name: str) -> ir.Value:
        """x [..., columns] times the transposed weight [rows, columns], with the bias of that name where there is one."""
        tensor, bias = self.weights[f"{name}.weight"], f"{name}.bias"
        found = coded(tensor) if self.quantised else None
        read = self.activation(x, tensor)
        y = self.float_product(read.values, f"{name}.weight") if found is None else self.code_product(read, tensor, found)
        return self.op.Add(y, self.vector(bias)) if bias in self.weights else y

    def activation(self, x: ir.Value, tensor: Any) -> activations.Rounded:
        """`x` as this weight is multiplied with it; of weights that ggml rounds for alike, the same value."""
        if not self.rounded or not isinstance(tensor, QuantizedTensor):
            return activations.Rounded(x)
        key = id(x), tensor.kind.name in activations.SMALL_BLOCKS
        if key not in self.activations:
            self.activations[key] = activations.rounded(self.op, self.constant, x, tensor.dims[-1], tensor.kind.name)
        return self.activations[key]

    def float_product(self, x: ir.Value, name: str) -> ir.Value:
        tensor = decoded(self.weights[name])
        turned = ComputedTensor(f"{name}.turned", type_of(tensor), dims_of(tensor)[::-1], lambda array: array.T, (tensor,))
        return self.op.MatMul(x, self.widened(self.stored(turned, f"{name}.turned")))

    def code_product(self, read: activations.Rounded, tensor: Any, found: Codes) -> ir.Value:
        op, x, (rows, columns) = self.op, read.values, tensor.dims
        groups = columns // found.group
        self.kept += 1
        # On numbers that have 8 bits in blocks of the same size already, the kernels of integers round nothing more.
        summed = self.rounded and tensor.kind.name in activations.SUMMED
        fitting = tensor.kind.name in activations.SMALL_BLOCKS and found.group == activations.SMALL and not (summed and found.bits == BYTE)
        level = INTEGERS if self.rounded and fitting else 0         # that of bytes with zero points answers NaN in ONNX Runtime 1.31
        inputs, offset = [x, *(self.stored(part, part.name) for part in (found.codes, found.scale))], found.offset
        if summed:                                          # what minima are multiplied with is rounded otherwise than what codes are multiplied with
            zeros = np.full((rows, -(-groups * found.bits // BYTE)), found.nothing, np.uint8)
            inputs.append(self.stored(array_tensor(zeros), f"{tensor.name}.zeros"))
            offset = found.minimum
        y = op.MatMulNBits(*inputs, K=columns, N=rows, bits=found.bits, block_size=found.group, accuracy_level=level, _domain=CONTRIB)
        if offset is None:
            return y
        sums = read.sums if summed else self.sums(op.Reshape(x, self.constant([0, 0, groups, found.group])))
        turned = ComputedTensor(f"{offset.name}.turned", FLOAT, (groups, rows), lambda array: array.T, (offset,))
        return op.Add(y, op.MatMul(sums, self.stored(turned, f"{offset.name}.turned")))

    def sums(self, blocks: ir.Value) -> ir.Value:
        """Of each block [batch, sequence, blocks, size]."""
        if not self.empty:
            return self.op.ReduceSum(blocks, self.constant([-1]), keepdims=0)
        return self.op.Squeeze(activations.reduced(self.op, self.constant, "ReduceSum", blocks), self.constant([-1]))

    def rows(self, ids: ir.Value, name: str) -> ir.Value:
        """The rows of a table that `ids` [batch, sequence] name, decoded after they are picked."""
        op, tensor = self.op, self.weights[name]
        found = coded(tensor) if self.quantised else None
        if found is None:
            table = self.stored(decoded(tensor), name)
            picked = op.Gather(table, ids, axis=0)
            return picked if table.dtype == ir.DataType.FLOAT else op.Cast(picked, to=FLOAT)
        codes = op.Gather(self.stored(found.codes, found.codes.name), ids, axis=0)
        if found.bits == NIBBLE:
            low, high = op.BitwiseAnd(codes, self.constant(15, np.uint8)), op.BitShift(codes, self.constant(4, np.uint8), direction="RIGHT")
            pairs = [op.Unsqueeze(half, self.constant([-1])) for half in (low, high)]
            codes = op.Reshape(op.Concat(*pairs, axis=-1), self.constant([0, 0, 0, found.group]))
        values = op.Mul(op.Sub(op.Cast(codes, to=FLOAT), self.constant(found.zero, np.float32)), self.of_group(found.scale, ids))
        values = values if found.offset is None else op.Add(values, self.of_group(found.offset, ids))
        return op.Reshape(values, self.constant([0, 0, tensor.dims[1]]))

    def of_group(self, tensor: Any, ids: ir.Value) -> ir.Value:
        return self.op.Unsqueeze(self.op.Gather(self.stored(tensor, tensor.name), ids, axis=0), self.constant([-1]))

    def finished(self, inputs: list[ir.Value], outputs: list[ir.Value], name: str, opset: int, ir_version: int) -> ir.Model:
        """The model of all that was appended."""
        nodes = self.op.tape.nodes
        imports = {"": opset} | {node.domain: 1 for node in nodes if node.domain}
        graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=tuple(self.initializers.values()), opset_imports=imports, name=name)
        return ir.Model(graph, ir_version=ir_version, producer_name="isomorph")


def decoded(tensor: Any) -> Any:
    """Blocks as float32, anything else as it is."""
    return tensor.decoded() if hasattr(tensor, "decoded") else tensor

