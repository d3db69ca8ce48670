"""The stage IR: types, weight expressions, core operators, graphs, their verifier, dump and interpreter."""
