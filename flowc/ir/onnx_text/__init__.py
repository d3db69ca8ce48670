"""ONNX text in a spec: what of it is allowed, parsed by onnx, and its types inferred where that is safe."""
