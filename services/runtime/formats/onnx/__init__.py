"""Loads ONNX models on onnxruntime. Imports none of the other formats."""
