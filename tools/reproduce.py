#!/usr/bin/env python3
"""The same as `tagclip reproduce`, whose help it shows with --help."""

import sys

from wsss.cli.main import main

if __name__ == "__main__":
    main(["reproduce", *sys.argv[1:]])
