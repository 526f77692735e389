"""The mathematics: no files, no clock, no printing, no transformers."""
