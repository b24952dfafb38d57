"""Keras to ONNX. Every module puts its rules into the one table."""
