"""From lowered graphs to published files: data layout, manifest, lock, staging."""
