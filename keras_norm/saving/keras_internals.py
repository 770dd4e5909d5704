"""Private names of Keras that loading needs, seen in Keras 3.8 to 3.15.

They are here and not in `graphs/graph.py`, because loading does not import
the conversion.

* `get_symbol_from_name` is the first lookup of every version of Keras 3.
  Classes that are not public, such as bare operations, Keras takes from the
  module; layers that Keras 2 saved without a module, from `keras.src.layers`.
* `Variable` is the class of every weight on every backend.
* `functional.deserialize_node` reads a call of a functional model.
"""

import inspect
import sys

import keras
from keras.src import layers as _layers
from keras.src.api_export import get_symbol_from_name
from keras.src.backend.common.variables import Variable
from keras.src.models import functional

__all__ = [
    "Variable",
    "find_class",
    "find_registered",
    "functional",
    "is_model_class",
    "is_model_function",
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
