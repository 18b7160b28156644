"""Trainings in a Kubernetes cluster: the FineTuneJob resource, its operator and the program in its pods."""
