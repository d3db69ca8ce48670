"""From a spec to graphs of core operators: what a stage is, how it is bound, and how a flow expands, phase by phase."""
