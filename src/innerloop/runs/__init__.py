"""What happens over time and on disk: config, data in the order it is read, the outer loop and its records."""
