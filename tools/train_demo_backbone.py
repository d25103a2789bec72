#!/usr/bin/env python3
"""The same as `tagclip demo train-backbone`, whose help it shows with --help."""

import sys

from wsss.cli.main import main

if __name__ == "__main__":
    main(["demo", "train-backbone", *sys.argv[1:]])
