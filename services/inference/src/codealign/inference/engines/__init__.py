"""Completion engines and what they share (`base`)."""
