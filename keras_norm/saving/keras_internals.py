"""Private names of Keras that loading needs, seen in Keras 3.8 to 3.15.

They are here and not in `graphs/graph.py`, because loading does not import
the conversion.

* `get_symbol_from_name` is the first lookup of every version of Keras 3.
  Classes that are not public, such as bare operations, Keras takes from the
  module; layers that Keras 2 saved without a module, from `keras.src.layers`.
* `Variable` is the class of every weight on every backend.
* `functional.deserialize_node` reads a call of a functional model.
* `_keras_history` of a symbolic tensor names the operation that outputs it.
* `saving_lib._load_state` restores a layer, in archives of Keras 2 as well.
"""

import contextlib
import inspect
import sys
import zipfile

import keras
from keras.src import layers as _layers
from keras.src.api_export import get_symbol_from_name
from keras.src.backend.common.variables import Variable
from keras.src.models import functional
from keras.src.saving import saving_lib as _saving_lib
from keras.src.utils.naming import to_snake_case

__all__ = [
    "ArchiveStore",
    "Variable",
    "call_arguments",
    "find_class",
    "find_registered",
    "functional",
    "is_model_class",
    "is_model_function",
    "name_operations",
    "open_weights",
    "to_snake_case",
]

CLASSES = (
    keras.Operation,
    keras.constraints.Constraint,
    keras.DTypePolicy,
    keras.initializers.Initializer,
    keras.losses.Loss,
    keras.metrics.Metric,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.quantizers.Quantizer,
    keras.random.SeedGenerator,
    keras.regularizers.Regularizer,
    # Keras 3.8 does not have this class.
    getattr(keras.quantizers, "QuantizationConfig", keras.quantizers.Quantizer),
)
# Modules in which Keras looks up a function by its bare name.
FUNCTION_MODULES = (
    "keras.activations",
    "keras.constraints",
    "keras.initializers",
    "keras.losses",
    "keras.metrics",
    "keras.regularizers",
)
# Functions of these modules that create objects of any kind.
NOT_IN_MODELS = ("get", "serialize", "deserialize")
LEGACY_MODELS = {
    "Functional": keras.Model,
    "Model": keras.Model,
    "Sequential": keras.Sequential,
}


def find_registered(saved):
    """Returns the registered class that a saved object names, or None."""
    # Keras 2 wrote no module: then only the class name counts.
    key = "registered_name" if "module" in saved else "class_name"
    return keras.saving.get_registered_object(
        saved.get(key, saved["class_name"])
    )


def find_class(class_name, module, modules=()):
    """Returns the object that Keras would find, without importing anything.

    Args:
        class_name: String.
        module: String, or None for a name without a module.
        modules: Names of imported modules that are allowed besides Keras.

    Returns:
        The object, or None.
    """
    if module is None:
        return LEGACY_MODELS.get(class_name) or vars(_layers).get(class_name)
    if module == "keras" or module.startswith("keras."):
        return _keras_symbol(module, class_name)
    if any(f"{module}.".startswith(f"{allowed}.") for allowed in modules):
        return _member(module, class_name)
    return None


def is_model_class(found):
    """Returns True for a class that models are made of."""
    return inspect.isclass(found) and issubclass(found, CLASSES)


def is_model_function(function, module):
    """Returns True for the name of a registered function or one for models.

    Args:
        function: The name.
        module: "builtins", which Keras writes for all functions, or one of
            Keras' modules.
    """
    if not isinstance(function, str):
        return False
    if keras.saving.get_registered_object(function) is not None:
        return True
    found = (
        _keras_symbol(home, function)
        for home in FUNCTION_MODULES
        if module in ("builtins", home)
    )
    return function not in NOT_IN_MODELS and any(
        inspect.isfunction(symbol) or is_model_class(symbol) for symbol in found
    )


def _keras_symbol(module, name):
    symbol = get_symbol_from_name(f"{module}.{name}")
    return _member(module, name) if symbol is None else symbol


def _member(module, name):
    loaded = sys.modules.get(module)
    return None if loaded is None else vars(loaded).get(name)


def call_arguments(layer):
    """Returns the names of the arguments with which a layer is called."""
    parameters = inspect.signature(layer.call).parameters
    names = set(parameters)
    if any(x.kind == x.VAR_KEYWORD for x in parameters.values()):
        names |= {"training", "mask"}
    return names


def name_operations(outputs, inputs, name):
    """Names the operations between symbolic tensors.

    Args:
        outputs: Tensor, or nested lists of tensors.
        inputs: The tensors, among other values, that they were computed from.
        name: Name of the last operation; those before it get a number.
    """
    known = {id(x) for x in keras.tree.flatten(inputs)}
    waiting, named = keras.tree.flatten(outputs), []
    while waiting:
        tensor = waiting.pop(0)
        if id(tensor) in known:
            continue
        known.add(id(tensor))
        operation, index, _ = tensor._keras_history
        if operation in named:
            continue
        operation.name = f"{name}_part{len(named)}" if named else name
        named.append(operation)
        waiting += operation._inbound_nodes[index].input_tensors


@contextlib.contextmanager
def open_weights(path):
    """Opens the weights of a `.keras` archive as an `ArchiveStore`."""
    with zipfile.ZipFile(path) as archive:
        store = ArchiveStore(archive)
        try:
            yield store
        finally:
            store.close()


class ArchiveStore:
    """The weights and assets of the layers in a `.keras` archive.

    Args:
        archive: `zipfile.ZipFile`, open for reading.
    """

    def __init__(self, archive):
        self._weights = _saving_lib.H5IOStore(
            _saving_lib._VARS_FNAME_H5, archive=archive, mode="r"
        )
        self._assets = None
        if any(x.startswith("assets/") for x in archive.namelist()):
            self._assets = _saving_lib.DiskIOStore(
                _saving_lib._ASSETS_DIRNAME, archive=archive, mode="r"
            )

    def container(self, path):
        """Returns the name of the group with the layers of a model."""
        old = "_layer_checkpoint_dependencies"
        group = self._weights.h5_file
        group = group[path] if path in group else group
        return old if old in group and "layers" not in group else "layers"

    def children(self, path):
        """Returns the names of the layers inside a layer."""
        group = self._weights.h5_file.get(path, ())
        return [name for name in group if name != "vars"]

    def read_variables(self, path):
        """Returns the arrays of the weights that stand under a path."""
        group = self._weights.h5_file.get(f"{path}/vars", {})
        return [group[str(number)][()] for number in range(len(group))]

    def load(self, layer, path):
        """Restores a layer from the weights and assets under a path."""
        # Keras 3.8 needs a set for the layers that failed, and their errors.
        failed, errors = set(), {}
        _saving_lib._load_state(
            layer,
            weights_store=self._weights,
            assets_store=self._assets,
            inner_path=path,
            skip_mismatch=False,
            visited_saveables=set(),
            failed_saveables=failed,
            error_msgs=errors,
        )
        for _, error in errors.values():
            raise error

    def close(self):
        self._weights.close()
        if self._assets is not None:
            self._assets.close()
