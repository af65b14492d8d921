"""`python -m fedsys`: the same as `fedsys`, where that is not on the path."""

from fedsys.cli import main

if __name__ == "__main__":
    main()
