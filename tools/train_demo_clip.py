#!/usr/bin/env python3
"""The same as `tagclip demo train-clip`, whose help it shows with --help."""

import sys

from wsss.cli.main import main

if __name__ == "__main__":
    main(["demo", "train-clip", *sys.argv[1:]])
