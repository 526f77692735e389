"""A config and its tasks -> a trainer and its steps."""
