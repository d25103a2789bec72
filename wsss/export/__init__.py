"""Run folders in the formats of other tools; `export_run` is what `tagclip export` runs."""

from wsss.export.export_options import ExportOptions
from wsss.export.formats import FORMATS
from wsss.export.run_export import ExportSummary, export_run

__all__ = ["FORMATS", "ExportOptions", "ExportSummary", "export_run"]
