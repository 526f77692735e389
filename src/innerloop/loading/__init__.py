"""A name -> a model and its tokenizer, checked."""
