"""What an autoscaler is told: how many executions are wanted."""
