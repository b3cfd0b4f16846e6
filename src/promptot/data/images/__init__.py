"""One image: its bytes, wherever they lie, as pixels; and what it is known by."""
