"""Everything that a training step changes, as arrays by name."""

import keras

import keras_norm
from keras_norm.conversion import graph
from recipes.errors import RecipeError


class State:
    """The variables of a trainer.

    Weights, moving statistics and random seeds, what the optimizer keeps,
    averages, loss scale and counters.

    Args:
        trainer: The `Trainer`, compiled.
    """

    def __init__(self, trainer):
        self.model = trainer.model
        groups = {
            "model": trainer.model.variables,
            "optimizer": trainer.optimizer.variables,
            "step": trainer.step_variables,
        }
        # By place: the names of layers may depend on what was built before.
        self.variables = {
            f"{group}.{index:05d}": variable
            for group, variables in groups.items()
            for index, variable in enumerate(variables)
        }

    def read(self):
        """Dict of the value of every variable."""
        return {
            name: keras.ops.convert_to_numpy(variable)
            for name, variable in self.variables.items()
        }

    def write(self, arrays, version):
        """Gives every variable its value.

        Args:
            arrays: Dict of arrays, as `read` gives it.
            version: The version of keras_norm that they were trained with; None
                for one that did not say, whose group normalization had other
                groups by default.

        Raises:
            RecipeError: for an array of another shape.
        """
        for name, variable in self.variables.items():
            if tuple(variable.shape) != arrays[name].shape:
                raise RecipeError(
                    f"{variable.path} has the shape {arrays[name].shape} in "
                    f"the save, and {tuple(variable.shape)} in this network."
                )
        for name, variable in self.variables.items():
            variable.assign(arrays[name])
        if version is None:
            for layer in graph.all_layers(self.model):
                if isinstance(layer, keras_norm.GroupNormalization):
                    layer.take_former_default()
