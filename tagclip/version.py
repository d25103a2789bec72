"""The project's version. It stands here only: setup.py, `tagclip --version` and the manifests of runs read it."""

__version__ = "0.2.0"
