"""The engines that write completions; `base` holds what they have in common."""
