#!/usr/bin/env python3
"""The same as `tagclip demo tag-rules`, whose help it shows with --help."""

import sys

from wsss.cli.main import main

if __name__ == "__main__":
    main(["demo", "tag-rules", *sys.argv[1:]])
