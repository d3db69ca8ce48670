"""Core operators become ONNX: targets, the emitter of each operator, the data file, and the files of a build."""
