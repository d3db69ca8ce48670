"""The escape hatch of a declarative compiler: a subgraph in ONNX text form. (In work at 23:16 by the author of
stages/recurrent.py and stages/streams.py; FLUX and the diffusion stages stay with the author of stages/diffusion.py.)"""
