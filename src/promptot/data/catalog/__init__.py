"""Data sets that are known by name: the drawings that ship, and public benchmarks."""
