"""ONNX operators in the forms that the kernels of the TensorFlow family have, still in ONNX: what several targets share.

A rule returns NotImplemented for a node that is in its form already. A target takes the table and puts its own rules over it.
"""
