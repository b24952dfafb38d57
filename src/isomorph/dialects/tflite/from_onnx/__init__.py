"""ONNX -> TensorFlow Lite: `pipeline` is the order of the steps, `operators` the rules of the last one."""
