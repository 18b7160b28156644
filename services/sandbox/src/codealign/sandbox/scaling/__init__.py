"""Interface for an autoscaler: how many executions are wanted."""
