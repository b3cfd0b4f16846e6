"""From weights, in each layout that people have them in, to a backbone."""
