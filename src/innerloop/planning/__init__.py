"""What a run will take, before it is paid for, and what it took."""
