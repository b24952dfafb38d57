"""ONNX -> ONNX, one pass a file. `pipeline` lists them in order, each with the reason why it stands there."""
