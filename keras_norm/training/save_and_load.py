"""Saves and loads a `ReplicaModel` as the network that it trains."""

import warnings

import h5py
import keras
import numpy as np

# Group that `save_weights` adds to a file with the network's weights.
GROUP = "replica_model"


class NetworkSaving:
    """Mixin that saves and exports the network instead of its wrapper."""

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """Saves the network for inference, with its averages if it has any.

        `keras.saving.load_model` loads the network, not compiled. It needs only
        the layers of this package that the network contains. To resume
        training, use `save_weights`.

        Args: See `keras.Model.save`.
        """
        with self.averaged():
            self.model.save(filepath, overwrite, zipped, **kwargs)

    def export(self, filepath, *args, **kwargs):
        """Exports the network for inference, see `keras.Model.export`."""
        with self.averaged():
            return self.model.export(filepath, *args, **kwargs)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """Saves everything that is needed to resume training.

        `load_weights` of the network can also load the network's weights from
        this file.

        Args:
            filepath, overwrite, max_shard_size: See
                `keras.Model.save_weights`. A sharded file contains only the
                weights of the network.
        """
        self.model.save_weights(filepath, overwrite, max_shard_size)
        if max_shard_size is not None:
            return
        with h5py.File(filepath, "a") as file:
            for path, variables in self._training_variables().items():
                group = file.create_group(f"{GROUP}/{path}")
                for index, variable in enumerate(variables):
                    group[str(index)] = _storable(variable)

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """Loads a file of `save_weights`, or only weights of the network.

        Args: See `keras.Model.load_weights`.
        """
        with self.distribute_strategy.scope():
            self.model.load_weights(filepath, skip_mismatch, **kwargs)
            self.averages.reset()
            if self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.passes.trainable)
            if not str(filepath).endswith(".weights.h5"):
                return
            with h5py.File(filepath, "r") as file:
                if GROUP in file:
                    self._load_training(file[GROUP])

    def summary(self, *args, **kwargs):
        """Prints a summary of the network, see `keras.Model.summary`."""
        self.model.summary(*args, **kwargs)

    def get_config(self):
        return {
            "name": self.name,
            "model": keras.saving.serialize_keras_object(self.model),
            **self.settings,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        return cls(**{**config, "model": model})

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        config.pop("jit_compile", None)
        self.compile(**config)

    def _training_variables(self):
        optimizer = self.optimizer
        return {
            "optimizer": [] if optimizer is None else optimizer.variables,
            "step": self.step_variables,
        }

    def _load_training(self, group):
        for path, variables in self._training_variables().items():
            stored = group[path]
            values = [stored[str(index)][()] for index in range(len(stored))]
            shapes = [tuple(variable.shape) for variable in variables]
            if [np.shape(value) for value in values] != shapes:
                warnings.warn(
                    f"The {path} variables of the file were not loaded: they "
                    "belong to another optimizer or other trainable layers.",
                    stacklevel=3,
                )
                continue
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)


def _storable(variable):
    value = keras.ops.convert_to_numpy(variable)
    # HDF5 does not support bfloat16.
    return value.astype("float32") if value.dtype.kind == "V" else value
