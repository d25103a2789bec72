# The mean of class activation maps and of SCLIP's probabilities for the same tags: they err in different places, and on
# this model the masks are better than from either (docs/results.md, stage three).
_base_ = "./masks.py"
method = ["cam", "sclip"]
