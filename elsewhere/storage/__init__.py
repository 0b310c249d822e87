"""HDF5 recordings and results; imports neither torch nor matplotlib."""

from elsewhere.protocols import Keep
from elsewhere.storage.arrays import ArraySource
from elsewhere.storage.files import (
    check_output,
    free_bytes,
    save_all,
    save_output,
    write_atomically,
)
from elsewhere.storage.partial import PartialRecording, open_recording
from elsewhere.storage.portions import Portion, Portions
from elsewhere.storage.recording import Recording
from elsewhere.storage.results import (
    check_result_room,
    load_result,
    result_bytes,
    save_result,
    to_half,
)
from elsewhere.storage.schema import FILTER, Header, StoredLayer
from elsewhere.storage.tables import check_table_name, save_table, table_bytes, tidy_table
from elsewhere.storage.verification import Damage, Verification, verify
from elsewhere.storage.writer import PortionWriter, RecordingWriter

__all__ = [
    "FILTER",
    "ArraySource",
    "Damage",
    "Header",
    "Keep",
    "PartialRecording",
    "Portion",
    "PortionWriter",
    "Portions",
    "Recording",
    "RecordingWriter",
    "StoredLayer",
    "Verification",
    "check_output",
    "check_result_room",
    "check_table_name",
    "free_bytes",
    "load_result",
    "open_recording",
    "result_bytes",
    "save_all",
    "save_output",
    "save_result",
    "save_table",
    "table_bytes",
    "tidy_table",
    "to_half",
    "verify",
    "write_atomically",
]
