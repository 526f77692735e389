"""What was learned, on disk: for others, and from others."""
