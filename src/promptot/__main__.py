"""`python -m promptot`."""

from promptot.cli import main

if __name__ == "__main__":
    main()
