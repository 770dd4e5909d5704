"""Objects of Keras by the names in a config, without importing anything.

`get_symbol_from_name` is what every version of Keras 3 asks first; classes that
are not public, such as bare operations, it takes from the module itself. Layers
without a module, as Keras 2 wrote them, it looks up in its package of layers.
"""

import inspect
import sys

import keras
from keras.src import layers as _layers
from keras.src.api_export import get_symbol_from_name

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
    # Keras 3.8 has none.
    getattr(keras.quantizers, "QuantizationConfig", keras.quantizers.Quantizer),
)
# Where Keras looks for a function by its bare name.
FUNCTION_MODULES = (
    "keras.activations",
    "keras.constraints",
    "keras.initializers",
    "keras.losses",
    "keras.metrics",
    "keras.regularizers",
)
# Functions there that make objects of any kind.
NOT_IN_MODELS = ("get", "serialize", "deserialize")
LEGACY_MODELS = {
    "Functional": keras.Model,
    "Model": keras.Model,
    "Sequential": keras.Sequential,
}


def find_registered(saved):
    """The registered class that a saved object names, or None."""
    # Without a module, the class name alone counts where Keras 2 wrote it.
    key = "registered_name" if "module" in saved else "class_name"
    return keras.saving.get_registered_object(
        saved.get(key, saved["class_name"])
    )


def find_class(kind, module, modules=()):
    """What Keras would find by a class name and a module, or None.

    Args:
        kind: String, the name.
        module: String, or None for a name without a module.
        modules: Names of imported modules that may be named beside Keras.
    """
    if module is None:
        return LEGACY_MODELS.get(kind) or vars(_layers).get(kind)
    if module == "keras" or module.startswith("keras."):
        return _keras_symbol(module, kind)
    if any(f"{module}.".startswith(f"{known}.") for known in modules):
        return _member(module, kind)
    return None


def is_model_class(found):
    """Whether it is a class of something that a model is made of."""
    return inspect.isclass(found) and issubclass(found, CLASSES)


def is_model_function(function, module):
    """Whether a name is that of a registered function or one for models.

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
