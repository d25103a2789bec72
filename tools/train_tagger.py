#!/usr/bin/env python3
"""The same as `tagclip train-tagger`, whose help it shows with --help."""

import sys

from wsss.cli.main import main

if __name__ == "__main__":
    main(["train-tagger", *sys.argv[1:]])
