"""What is in a file of data? Its records, whatever its format and compression, told by content.

Without TensorFlow, in bounded memory. `open_records` is the one reader of all that comes as files
of text, JSON lines, one JSON array or Parquet.
"""

from switchx.data.files.formats import JSON_ARRAY, JSON_LINES, PARQUET, TEXT, Format
from switchx.data.files.lines import CutLine
from switchx.data.files.records import Record, Records, check_formats, open_records

__all__ = [
    "JSON_ARRAY",
    "JSON_LINES",
    "PARQUET",
    "TEXT",
    "CutLine",
    "Format",
    "Record",
    "Records",
    "check_formats",
    "open_records",
]
