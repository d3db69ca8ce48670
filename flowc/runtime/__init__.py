"""Running built models with onnxruntime: what a manifest names, sessions, caches, text in and out."""
