"""What a comparison found: its files, its numbers, their schema."""
