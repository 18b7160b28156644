"""Experiments: arms that differ in their training data, carried out for several seeds and compared."""
