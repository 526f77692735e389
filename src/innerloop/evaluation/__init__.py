"""Does it help? Adaptation on tasks that training never saw."""
