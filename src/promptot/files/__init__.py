"""Reading and writing files: bounded, atomic, locked, and never other people's."""
