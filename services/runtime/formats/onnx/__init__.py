"""Loads ONNX models on onnxruntime. Imports formats.port and formats.installed."""
