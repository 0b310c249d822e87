"""Whether what is asked for is there already."""

from __future__ import annotations

from pathlib import Path

from elsewhere.errors import ExistsError, StorageError
from elsewhere.logs import get_logger
from elsewhere.measures.behaviour import differing as unlike
from elsewhere.recording.sweep import Sweep
from elsewhere.storage import Header, open_recording
from elsewhere.storage.parts import Parts, begun_by, differing, parts_folder, read_manifest

logger = get_logger(__name__)


def is_complete(path: Path, header: Header) -> bool:
    """Return whether `path` is the finished recording that `header` describes.

    Parameters
    ----------
    path
        The recording to be.
    header
        What is to be recorded.

    Returns
    -------
    bool
        True if it is there; False if there is no file of that name.

    Raises
    ------
    ExistsError
        A file of that name is another recording, whose differing fields are named, or none.
    """
    if not path.exists():
        return False
    remedy = "choose another name or pass --overwrite"
    try:
        with open_recording(path) as recording:
            earlier = recording.attributes.get("identity_fields")
            behaviour = recording.behaviour
    except StorageError as error:
        raise ExistsError(
            f"{path} exists already and is no whole recording ({error}); {remedy}"
        ) from error
    fields = header.identity_fields()
    if earlier is None:
        raise ExistsError(
            f"{path} exists already, and its format names no fields to compare with; {remedy}"
        )
    if names := differing(earlier, fields):
        raise ExistsError(
            f"{path} exists already and is another recording (it differs in {', '.join(names)}); "
            f"{remedy}"
        )
    if names := unlike(behaviour, header.behaviour, last=3):
        raise ExistsError(
            f"{path} exists already, and its network did something else in "
            f"{', '.join(names)}, although it has the same name, code and weights (a constant of a "
            f"module, a closure or an unsaved buffer?); {remedy}"
        )
    _remove_rest(path, header)
    return True


def go_on_as_begun(sweep: Sweep, path: Path) -> None:
    """Take the engine by which the parts of `path` were begun, where ``auto`` has the choice."""
    engine = begun_by(path)
    if engine == "dense":
        sweep.step_aside("the parts that are there were begun by whole canvases")
    elif engine:
        sweep.go_on_by(engine)


def _remove_rest(path: Path, header: Header) -> None:
    """Remove the parts of a run that was killed after its recording got its name."""
    if parts_folder(path).is_dir():
        numerics = (read_manifest(parts_folder(path)) or {}).get("numerics")  # whichever
        try:
            with Parts(path, header.identity_fields(), numerics=numerics) as parts:
                parts.discard()
        except StorageError:  # of another recording, or in use: not ours to remove
            logger.info("%s stays: it is in use or of another recording", parts_folder(path))
