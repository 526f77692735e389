"""What a run does where its config says nothing, and neither its method's row nor its kind of space has a say.

DEFAULT_TASKS_PER_STEP, DEFAULT_TRUNK_CACHE_GB    of training
AUTO_TOKENS_PER_FORWARD   by the kind of device
"""

# On two cores 1,024 tokens per forward pass were slower than 512 and took 1.5 times the memory (benchmarks/step.py).
# A GPU is assumed, not measured, to be busy from about 8,192 on.
AUTO_TOKENS_PER_FORWARD = {"cpu": 512, "cuda": 8192}


DEFAULT_TASKS_PER_STEP = 4  # 1 for a method that trains on one task


DEFAULT_TRUNK_CACHE_GB = 16
