"""Networks: the zoo, weights, input transforms, layer names and layer geometry.

What is exported here is imported when it is first asked for, so that the names of the models can
be listed without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elsewhere.registry import imported_later

if TYPE_CHECKING:
    from elsewhere.models.conduct import Conduct as Conduct
    from elsewhere.models.conduct import observe as observe
    from elsewhere.models.identity import describe_code as describe_code
    from elsewhere.models.layers import list_layers as list_layers
    from elsewhere.models.loading import load_model as load_model
    from elsewhere.models.model import Model as Model
    from elsewhere.models.model import find_device as find_device
    from elsewhere.models.names import OUTPUT as OUTPUT
    from elsewhere.models.names import check_layers as check_layers
    from elsewhere.models.names import check_model as check_model
    from elsewhere.models.names import matching as matching
    from elsewhere.models.names import model_names as model_names
    from elsewhere.models.names import model_registry as model_registry
    from elsewhere.models.names import parse_model_args as parse_model_args
    from elsewhere.models.outputs import output_tensors as output_tensors
    from elsewhere.models.restoring import untouched as untouched
    from elsewhere.models.selection import select_layers as select_layers
    from elsewhere.models.transform import IMAGENET as IMAGENET
    from elsewhere.models.transform import InputTransform as InputTransform
    from elsewhere.models.weights import read_state as read_state
    from elsewhere.models.weights import state_sha256 as state_sha256
    from elsewhere.models.zoo_table import zoo_table as zoo_table
    from elsewhere.protocols import Layer as Layer
else:  # a checker must not take unknown names for granted
    __all__, __getattr__, __dir__ = imported_later(__name__, __file__)
