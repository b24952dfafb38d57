"""ONNX to Keras: layers where the graph has them, operations of `keras.ops` for the rest."""
