"""HDF5 recordings and results; imports neither torch nor matplotlib.

What is exported here is imported when it is first asked for, so that a module of files alone, as
curricula need it, brings neither xarray nor HDF5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elsewhere.registry import imported_later

if TYPE_CHECKING:
    from elsewhere.kept import Keep as Keep
    from elsewhere.storage.arrays import ArraySource as ArraySource
    from elsewhere.storage.files import check_output as check_output
    from elsewhere.storage.files import free_bytes as free_bytes
    from elsewhere.storage.files import save_all as save_all
    from elsewhere.storage.files import save_output as save_output
    from elsewhere.storage.files import write_atomically as write_atomically
    from elsewhere.storage.partial import PartialRecording as PartialRecording
    from elsewhere.storage.partial import open_recording as open_recording
    from elsewhere.storage.portions import Portion as Portion
    from elsewhere.storage.portions import Portions as Portions
    from elsewhere.storage.recording import Recording as Recording
    from elsewhere.storage.results import check_result_room as check_result_room
    from elsewhere.storage.results import load_result as load_result
    from elsewhere.storage.results import result_bytes as result_bytes
    from elsewhere.storage.results import save_result as save_result
    from elsewhere.storage.results import to_half as to_half
    from elsewhere.storage.schema import FILTER as FILTER
    from elsewhere.storage.schema import Header as Header
    from elsewhere.storage.schema import StoredLayer as StoredLayer
    from elsewhere.storage.tables import check_table_name as check_table_name
    from elsewhere.storage.tables import save_table as save_table
    from elsewhere.storage.tables import table_bytes as table_bytes
    from elsewhere.storage.tables import tidy_table as tidy_table
    from elsewhere.storage.verification import Damage as Damage
    from elsewhere.storage.verification import Verification as Verification
    from elsewhere.storage.verification import verify as verify
    from elsewhere.storage.writer import PortionWriter as PortionWriter
    from elsewhere.storage.writer import RecordingWriter as RecordingWriter
else:  # a checker must not take unknown names for granted
    __all__, __getattr__, __dir__ = imported_later(__name__, __file__)
