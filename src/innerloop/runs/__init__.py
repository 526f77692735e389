"""What happens over time and on disk: config, data in its order, the outer loop and its records."""
