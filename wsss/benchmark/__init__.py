"""Speed and memory of both stages beside the baseline: see `tagclip benchmark`."""
