"""A base on which scales are tried, without building and applying a patch.

The entries that the recipe selects are set to exactly what a patch with these scales would write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from patchc.errors import UnsupportedInputError
from patchc.fitting.live_weights import Settable
from patchc.fitting.scale_gradients import ScaleGradients
from patchc.layered.layered_model import LayeredModel
from patchc.selection.selected_entries import TensorEntries

Scales = Mapping[str, Sequence[np.float32]]
"""For each tensor, the scale of each component's delta."""


class LiveModel:
    """A model on a device, the same as the base until scales are set.

    Args:
        model: the base.
        settable: takes the words of its entries.
        entries: for each tensor that takes part, the entries that scales move.

    Raises:
        UnsupportedInputError: a tensor that takes part is no parameter of the model, or the same
            one as another.
    """

    def __init__(
        self, model: LayeredModel, settable: Settable, entries: Mapping[str, TensorEntries]
    ) -> None:
        self.model = model
        self.entries = entries
        self._settable = settable
        self._by_parameter: dict[str, TensorEntries] = {}
        for name, each in entries.items():
            parameter = model.parts.names.get(name)
            if parameter is None:
                raise UnsupportedInputError(
                    f"tensor {name!r} is not a parameter of the loaded model; exclude it"
                )
            if parameter in self._by_parameter:
                raise UnsupportedInputError(
                    f"the model ties tensor {name!r} to another that takes part; exclude one of "
                    "them"
                )
            self._by_parameter[parameter] = each

    def set(self, scales: Scales) -> None:
        """Write the words of these scales, bit for bit those of a build with them.

        Raises:
            NumericError: a value is not finite; some tensors are set, and the base is to be
                restored.
        """
        for name, each in self._by_parameter.items():
            self._settable.put(name, each, each.merged(scales[each.tensor.name]))
        self.model.weights.changed()

    def restore(self) -> None:
        """Write the base's words back, bit for bit."""
        for name, each in self._by_parameter.items():
            self._settable.restore(name, each)
        self.model.weights.changed()

    def gradients(self) -> ScaleGradients:
        """Return a collector of ∂loss/∂scale of every tensor's scales, for a pass."""
        return ScaleGradients(self._by_parameter)
