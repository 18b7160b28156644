"""Runners: isolated boxes that execute programs, by the way in which they are started and reached."""
