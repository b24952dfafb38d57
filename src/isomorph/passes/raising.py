"""Loops whose body is a recurrent cell become the operator that ONNX has for it."""
from __future__ import annotations

import onnx_ir as ir


def raise_recurrent(graph: ir.Graph) -> None:
    """Turns every Loop over a sequence whose body is one LSTM, GRU or RNN cell into that operator."""
