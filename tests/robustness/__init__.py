"""What becomes of runs that are struck and of inputs that nobody should trust, and how a step's seconds grow."""
