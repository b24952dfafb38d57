"""Tensors whose data are blocks of a ggml type. To whoever reads them they are float32; a writer that knows blocks takes them as they are."""
from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsupported
from isomorph.quant.blocks import BlockType
from isomorph.tensors import CHUNK, NUMBER, SliceTensor, StackedTensor, Tensor, dims_of, numpy_type, release

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


    def decoded(self) -> Tensor:
        """The float32 view alone: what no writer takes for blocks."""
        return _Decoded(self)


class _Decoded(Tensor):
    def __init__(self, blocks: QuantizedTensor):
        super().__init__(blocks.name, blocks.element_type, blocks.dims)
        self.blocks = blocks

    def numpy(self) -> np.ndarray:
        return self.blocks.numpy()

    def chunks(self) -> Iterator[Any]:
        return self.blocks.chunks()


class EncodedTensor(QuantizedTensor):
    """Blocks of type `kind` made from another tensor, slab by slab on several threads, when they are written.

    `importance` is float32 [columns] or, for stacked experts, [experts, columns]. Raises `Unsupported` when written for values that are not finite.
    """

    def __init__(self, kind: BlockType, source: Any, importance: np.ndarray | None = None, threads: int = 1):
        Tensor.__init__(self, source.name, NUMBER["FLOAT"], dims_of(source))
        self.kind, self.source, self.swapped, self.importance, self.threads = kind, source, False, importance, threads
        if not self.dims or self.dims[-1] % kind.elements:
            raise Damaged(f"rows of {self.dims[-1:]} elements are no whole number of blocks of {kind.elements}", where=str(source.name))

    def stored(self) -> Iterator[Any]:
        """Slabs of whole rows, in order; no more of them wait than there are threads."""
        if self.threads < 2 or self.size <= SLAB:
            yield from (self._encoded(first, slab) for first, slab in self._rows())
            return
        waiting: deque[Future] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            for first, slab in self._rows():
                waiting.append(pool.submit(self._encoded, first, slab))
                if len(waiting) > self.threads:
                    yield waiting.popleft().result()
            yield from (each.result() for each in waiting)

    def _rows(self) -> Iterator[tuple[int, np.ndarray]]:
        """Slabs of whole rows, each with the number of its first row."""
        first, columns = 0, self.dims[-1]
        for slab in float_slabs(self.source, max(1, SLAB // columns) * columns):
            yield first, slab
            first += len(slab) // columns

    def _encoded(self, first: int, slab: np.ndarray) -> Any:
        """The blocks of the rows from `first` on."""
        import numpy as np

        from isomorph.quant.encode import quantize
        _require_finite(slab, self.name)
        rows, importance = slab.reshape(-1, self.dims[-1]), self.importance
        if importance is not None and importance.ndim > 1:          # each expert has its own
            importance = importance[np.arange(first, first + len(rows)) // self.dims[-2]]
        return quantize(self.kind.name, rows, importance).reshape(-1).data

    def numpy(self) -> np.ndarray:
        import numpy as np
        pieces = [np.frombuffer(chunk, np.float32) for chunk in self.chunks()]
        return np.concatenate([np.empty(0, np.float32), *pieces]).reshape(self.dims)

    def chunks(self) -> Iterator[Any]:
        from isomorph.quant.decode import dequantize
        return (dequantize(self.kind.name, piece).view("u1").data for piece in self.stored())


class CastTensor(Tensor):
    """Another tensor of floats as `element_type`, slab by slab."""

    def __init__(self, element_type: int, source: Any):
        super().__init__(source.name, element_type, dims_of(source))
        self.source = source

    def numpy(self) -> np.ndarray:
        import numpy as np
        return np.frombuffer(self.tobytes(), numpy_type(self.element_type)).reshape(self.dims)

    def chunks(self) -> Iterator[Any]:
        return (slab.astype(numpy_type(self.element_type)).view("u1").data for slab in float_slabs(self.source, SLAB))


def float_slabs(tensor: Any, step: int) -> Iterator[np.ndarray]:
    """The elements of a tensor as float32, `step` at a time. Mapped data are never whole in memory, computed ones are as their function makes them."""
    import numpy as np
    if type(tensor) is QuantizedTensor and step % tensor.kind.elements == 0:
        for start in range(0, tensor.size, step):
            stop = min(start + step, tensor.size)
            yield tensor.slab(start, stop)
            release(tensor.blocks[start // tensor.kind.elements * tensor.kind.bytes:stop // tensor.kind.elements * tensor.kind.bytes])
        return
    if isinstance(tensor, QuantizedTensor):
        for chunk in tensor.chunks():
            slab = np.frombuffer(chunk, np.float32)
            yield from (slab[start:start + step] for start in range(0, len(slab), step))
        return
    if isinstance(tensor, StackedTensor):
        for part in tensor.parts:
            yield from float_slabs(part, step)
        return
    flat = tensor.numpy().reshape(-1)
    for start in range(0, len(flat), step):
        piece = flat[start:start + step]
        if piece.dtype.name == "bfloat16":
            yield (piece.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
        else:
            yield piece.astype(np.float32, copy=False)
        if isinstance(tensor, SliceTensor):                   # pages of the mapping that another thread still reads come back by themselves
            release(tensor.data[start * flat.itemsize:(start + len(piece)) * flat.itemsize])


def _require_finite(slab: np.ndarray, name: str | None) -> None:
    import numpy as np
    if not np.isfinite(slab).all():
        raise Unsupported(f"tensor {name!r} holds values that are infinite or no numbers", where=str(name), hint="blocks cannot hold them: look at the source")
