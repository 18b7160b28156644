"""The gateway: the service's contract in front of engine workers."""
