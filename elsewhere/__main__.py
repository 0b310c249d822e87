"""``python -m elsewhere``: the command line."""

from elsewhere.cli import main

if __name__ == "__main__":
    main()
