"""ONNX -> TensorFlow."""
