"""`python -m fedsys`: the same as `fedsys`, where that is not on the path."""

import os
import sys


def main() -> None:
    """Runs the command line; Ctrl-C amid its imports, too, is a line and no traceback."""
    try:
        from fedsys.cli import main as run
    except KeyboardInterrupt:
        print("fedsys: interrupted", file=sys.stderr, flush=True)
        os._exit(130)
    run()


if __name__ == "__main__":
    main()
