"""Runners: isolated sandboxes that execute programs, grouped by how they are started and reached."""
