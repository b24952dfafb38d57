"""Tensors whose data are blocks of a ggml type. To whoever reads them they are float32; a writer that knows blocks takes them as they are."""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged
from isomorph.quant.blocks import BlockType
from isomorph.tensors import CHUNK, NUMBER, Tensor

if TYPE_CHECKING:
    import numpy as np

SLAB = 1 << 20                             # elements that are decoded at once


class QuantizedTensor(Tensor):
    """Blocks of type `kind` inside a mapping, seen as float32. Blocks run along the last axis. Raises `Damaged` where the bytes are not those of the shape."""

    def __init__(self, name: str | None, kind: BlockType, dims: Sequence[int], blocks: memoryview | bytes, *, swapped: bool = False):
        super().__init__(name, NUMBER["FLOAT"], dims)
        self.kind, self.swapped, self.blocks = kind, swapped, memoryview(blocks)
        if not self.dims or self.dims[-1] % kind.elements or self.blocks.nbytes != self.stored_bytes:
            raise Damaged(f"{self.blocks.nbytes} bytes of {kind.name} for the shape {list(self.dims)}", where=str(name))

    @property
    def stored_bytes(self) -> int:
        """Bytes of the blocks; `nbytes` counts those of the float32 view."""
        return self.size // self.kind.elements * self.kind.bytes

    def stored(self) -> Iterator[Any]:
        """The blocks, little-endian, piece by piece."""
        step = max(1, CHUNK // self.kind.bytes) * self.kind.bytes
        for start in range(0, self.blocks.nbytes, step):
            piece = self.blocks[start:start + step]
            yield self._little(piece).tobytes() if self.swapped else piece

    def slab(self, start: int, stop: int) -> np.ndarray:
        """Elements `start` to `stop` as float32; both are multiples of a block."""
        from isomorph.quant.decode import dequantize
        piece = self.blocks[start // self.kind.elements * self.kind.bytes:stop // self.kind.elements * self.kind.bytes]
        return dequantize(self.kind.name, self._little(piece).tobytes() if self.swapped else piece)

    def numpy(self) -> np.ndarray:
        import numpy as np
        out = np.empty(self.size, np.float32)
        for start, stop in self._slabs():
            out[start:stop] = self.slab(start, stop)
        return out.reshape(self.dims)

    def chunks(self) -> Iterator[Any]:
        for start, stop in self._slabs():
            yield self.slab(start, stop).view("u1").data

    def _slabs(self) -> Iterator[tuple[int, int]]:
        step = SLAB // self.kind.elements * self.kind.elements
        return ((start, min(start + step, self.size)) for start in range(0, self.size, step))

    def _little(self, piece: memoryview) -> np.ndarray:
        import numpy as np

        from isomorph.quant.decode import layout
        return np.frombuffer(piece, layout(self.kind.name)).byteswap()

    def __repr__(self) -> str:
        return f"QuantizedTensor<{self.kind.name},{list(self.dims)}>({self.name!r})"


def stored_bytes(kind: BlockType, dims: Sequence[int]) -> int:
    """Bytes of a tensor of that type and shape. A row must be a whole number of blocks."""
    return math.prod(dims) // kind.elements * kind.bytes
