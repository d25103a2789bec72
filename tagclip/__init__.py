"""Stage one: TagCLIP image tags from a frozen CLIP."""
