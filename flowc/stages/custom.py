"""The escape hatch of a declarative compiler: a subgraph in ONNX text form. (Begun; the author of this file has it.)"""
