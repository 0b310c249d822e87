from elsewhere.analyzer import compare as compare
from elsewhere.analyzer import measure as measure
from elsewhere.analyzer import similarity as similarity
from elsewhere.analyzer.attribution import AttributionSettings as AttributionSettings
from elsewhere.analyzer.attribution import attribute as attribute
from elsewhere.errors import ElsewhereError as ElsewhereError
from elsewhere.figures import plot_attribution_equivariance as plot_attribution_equivariance
from elsewhere.figures import plot_attribution_frame as plot_attribution_frame
from elsewhere.figures import plot_attribution_grid as plot_attribution_grid
from elsewhere.figures import plot_attribution_timeline as plot_attribution_timeline
from elsewhere.figures import plot_comparison as plot_comparison
from elsewhere.figures import plot_displacement as plot_displacement
from elsewhere.figures import plot_layerwise as plot_layerwise
from elsewhere.figures import plot_objects as plot_objects
from elsewhere.figures import plot_probe_layerwise as plot_probe_layerwise
from elsewhere.figures import plot_probe_maps as plot_probe_maps
from elsewhere.figures import plot_probe_matrix as plot_probe_matrix
from elsewhere.figures import plot_similarity_maps as plot_similarity_maps
from elsewhere.figures import save_figure as save_figure
from elsewhere.models import list_layers as list_layers
from elsewhere.models import load_model as load_model
from elsewhere.probes import probe as probe
from elsewhere.recording import Recorder as Recorder
from elsewhere.recording import Sweep as Sweep
from elsewhere.recording import plan as plan
from elsewhere.recording import record as record
from elsewhere.stimuli import Canvas as Canvas
from elsewhere.stimuli import Grid as Grid
from elsewhere.stimuli import ObjectSet as ObjectSet
from elsewhere.stimuli import load_objects as load_objects
from elsewhere.storage import ArraySource as ArraySource
from elsewhere.storage import Recording as Recording
from elsewhere.storage import load_result as load_result
from elsewhere.storage import save_result as save_result
from elsewhere.storage import verify as verify

__version__: str
__all__: list[str]
