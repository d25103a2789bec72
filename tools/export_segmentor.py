#!/usr/bin/env python3
"""The same as `tagclip export-model`, whose help it shows with --help."""

import sys

from wsss.cli.main import main

if __name__ == "__main__":
    main(["export-model", *sys.argv[1:]])
