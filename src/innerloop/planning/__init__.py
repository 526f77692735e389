"""Memory, time and disk of a run: predicted before it starts, measured in its first step."""
