"""Stages two and three: class activation maps, pseudo masks, segmentation training."""
