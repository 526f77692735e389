"""Text becomes tasks, tasks become token ids, token ids become batches."""
