"""Rewriting until only the operators that a target has are left."""

from __future__ import annotations

import onnx_ir as ir

from isomorph.dialects._lower import Mapping, Rewrite
from isomorph.passes import functions, shapes
from isomorph.passes.fold import fold

ROUNDS = 24  # decompositions nest: Attention -> Softmax -> ... ; more rounds than this mean a rule that feeds itself


def to_kernel(graph: ir.Graph, simplify: Mapping, kernel: Mapping) -> dict[str, str]:
    """Rewrites by `simplify`, and by ONNX's own function bodies where neither table has a rule; returns why rules refuse the nodes that are left, by node."""
    reasons: dict[str, str] = {}
    for _ in range(ROUNDS):
        mapping = Mapping().update(simplify)
        for node in (*graph.all_nodes(),):
            key = (node.domain, node.op_type)
            if key not in mapping.rules and key not in kernel.rules and functions.has_function(node):
                mapping.rules[key] = functions.EXPAND
        done = Rewrite(graph, mapping, "", keep=lambda node: True, infer_node=shapes.infer_node).run()
        reasons = {where: why for _, where, why in done.blockers}
        if not done.changed:
            break
        fold(graph)
    return reasons
