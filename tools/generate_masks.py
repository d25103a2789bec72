#!/usr/bin/env python3
"""The same as `tagclip mask`, whose help it shows with --help."""

import sys

from wsss.cli.main import main

if __name__ == "__main__":
    main(["mask", *sys.argv[1:]])
