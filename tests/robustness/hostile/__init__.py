"""Hostile inputs, named and drawn: files, records and configs that nobody should trust."""
