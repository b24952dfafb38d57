"""TensorFlow Lite -> ONNX: `pipeline` is the order of the steps, `operators` and its companions the rules."""
