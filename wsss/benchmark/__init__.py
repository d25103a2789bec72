"""Speed and memory of both stages beside the straightforward procedure: see `tagclip benchmark`."""
