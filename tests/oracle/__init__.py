"""A plain, slow transcription of the published methods (preset `reference`), independent of the packages under test.

It shares no code with `tagclip` and `wsss`: it reads the weights itself, walks the transformer with explicit matrix
products, keeps all attention maps, and loops over classes. Tests compare the fast code with it; the benchmark uses it
as the baseline.
"""
