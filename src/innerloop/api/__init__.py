"""Python on live objects, by the names of transformers' Trainer, over the same code as a YAML run."""
