"""Which tensors are trained, and how the model runs with other values in their place."""
