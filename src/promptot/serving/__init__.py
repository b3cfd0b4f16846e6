"""A page on which a run and the frozen model answer side by side."""
