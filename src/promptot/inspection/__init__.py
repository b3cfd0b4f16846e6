"""What a data set is like, before anything is learned from it."""
