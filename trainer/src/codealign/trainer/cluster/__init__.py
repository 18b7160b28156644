"""Trainings in a Kubernetes cluster: the resource, its operator, and what runs in its pods."""
