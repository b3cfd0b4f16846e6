"""The two towers of a CLIP, and the blocks that they are made of."""
