"""``python -m segship`` is the command ``segship``."""

from segship.cli import main

if __name__ == "__main__":
    main()
