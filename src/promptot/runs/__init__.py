"""One training and what it leaves: a run, its folder, its adapter, and the classifier."""
