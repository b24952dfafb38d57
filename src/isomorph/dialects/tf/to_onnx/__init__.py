"""TensorFlow -> ONNX."""
