"""A small classifier trained on the scores of a run: what it learns from, what it is, and how it is used."""
