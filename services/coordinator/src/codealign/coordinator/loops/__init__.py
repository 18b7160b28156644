"""Loops: training on a run's dataset version, with evaluations of the model before and after."""
