"""Whether a backbone computes what its own library computes from the same weights."""
