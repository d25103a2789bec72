#!/usr/bin/env python3
"""The same as `tagclip doctor`, whose help it shows with --help."""

import sys

from wsss.cli.main import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])
