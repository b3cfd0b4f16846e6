"""Building blocks of `tools/build_assets.py`, one module a stage."""
