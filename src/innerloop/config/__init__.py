"""Strict YAML -> the objects of the layers below."""
