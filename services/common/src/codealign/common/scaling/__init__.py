"""Interface for an autoscaler: how many replicas are wanted of what works for a server."""
