"""Modules that are copied into an export: they need open_clip or transformers, and not promptot."""
