"""Formats that a network can be written in, each with its way back.

Every format names the input `images`, and the outputs as the network does.
"""

import contextlib
import dataclasses
import importlib.util
import logging
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from recipes import tf_internals
from recipes.errors import RecipeError

INPUT = "images"


@dataclasses.dataclass(frozen=True)
class Format:
    """A way to write a network, and to run what was written.

    Attributes:
        file: Name of the file in the folder, or "" for the folder itself.
        packages: What is to be installed, by the names that are imported.
        write: `f(network, path)`; the network maps images to a dict.
        load: `f(path)` gives a function from a batch of images to a dict of
            outputs.
    """

    file: str
    packages: dict[str, str]
    write: Callable
    load: Callable


def get_format(name):
    """The format of that name, once its packages are there.

    Raises:
        RecipeError: naming the packages that are not.
    """
    found = FORMATS[name]
    missing = [
        package
        for module, package in found.packages.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise RecipeError(
            f"--export_format={name} needs {', '.join(missing)}: "
            f"pip install {' '.join(missing)}"
        )
    return found


def _write_saved_model(network, path):
    network.export(
        path,
        format="tf_saved_model",
        input_signature=_signature(network),
        verbose=False,
    )


def _load_saved_model(path):
    loaded = tf.saved_model.load(path)

    def run(images):
        # Names the module too, whose variables would go with it.
        serve = loaded.signatures["serving_default"]
        outputs = serve(**{INPUT: tf.constant(images)})
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def _write_litert(network, path):
    # Without TensorFlow's own operations, which need a larger runtime.
    builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    network.export(
        path,
        format="litert",
        input_signature=_signature(network),
        verbose=False,
        target_spec=builtins,
    )


def _load_litert(path):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path).get_signature_runner()

    def run(images):
        return runner(**{INPUT: images})

    return run


def _write_onnx(network, path):
    # Not by Keras' export: constants that a layer holds as tensors, such as
    # the mean of Normalization, would become inputs.
    (signature,) = _signature(network)[0].values()
    names = list(network.output)

    def call(images):
        outputs = network({INPUT: images}, training=False)
        # Each a tensor of its own, to carry its name.
        return [tf.identity(outputs[name]) for name in names]

    function = tf.function(call, input_signature=[signature])
    frozen = tf_internals.freeze_variables(function.get_concrete_function())
    model = _to_onnx(frozen, names, network.name)
    _keep_zeros_before_max_pools(model.graph)
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


def _to_onnx(frozen, output_names, name):
    from tf2onnx import optimizer
    from tf2onnx import tf_loader
    from tf2onnx import tfonnx

    class KeptTransposes(optimizer.TransposeOptimizer):
        """Makes no transpose of a 1x1 map a reshape.

        It would do so by shapes that it moved twice where both factors of a
        product are one tensor, as in the squares that norms sum up.
        """

        def post_optimize_action(self):
            pass

    steps = dict(optimizer._get_optimizers())
    steps["optimize_transpose"] = KeptTransposes
    inputs = [frozen.inputs[0].name]
    outputs = [tensor.name for tensor in frozen.outputs]
    renamed = dict(zip(outputs, output_names, strict=True))
    with tf.device("CPU:0"):
        with tf.Graph().as_default():
            graph_def = tf_loader.tf_optimize(
                inputs, outputs, frozen.graph.as_graph_def(add_shapes=True)
            )
        with tf.Graph().as_default() as tf_graph:
            tf.import_graph_def(graph_def, name="")
            graph = tfonnx.process_tf_graph(
                tf_graph,
                input_names=inputs,
                output_names=outputs,
                tensors_to_rename={inputs[0]: INPUT, **renamed},
            )
            graph = optimizer.optimize_graph(graph, optimizers=steps)
            model = graph.make_model(name)
    # The same shapes, which runtimes infer by themselves.
    del model.graph.value_info[:]
    return model


def _keep_zeros_before_max_pools(graph):
    """Pads with the least positive number what a max pool reads.

    ONNX Runtime moves a padding with zeros into the pool behind it, where the
    border never is the largest: another result wherever all else is negative,
    as before the first pool of ResNet50V2. It leaves other numbers alone.
    """
    from onnx import numpy_helper

    pooled = {n.input[0] for n in graph.node if n.op_type == "MaxPool"}
    pads = [
        node
        for node in graph.node
        if node.op_type == "Pad"
        and node.output[0] in pooled
        and not any(
            a.name == "mode" and a.s != b"constant" for a in node.attribute
        )
    ]
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    least = np.array(np.finfo("float32").tiny, "float32")
    for node in pads:
        value = node.input[2] if len(node.input) > 2 else ""
        if value and constants[value] != 0.0:
            continue
        name = f"{node.output[0]}_least"
        graph.initializer.append(numpy_helper.from_array(least, name))
        del node.input[2:3]
        node.input.insert(2, name)


def _load_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )

    def run(images):
        names = [output.name for output in session.get_outputs()]
        values = session.run(names, {INPUT: images})
        return dict(zip(names, values, strict=True))

    return run


def _signature(network):
    """The input with its unknown sizes, under the name that files give it."""
    shape = (None, *network.inputs[0].shape[1:])
    return [{INPUT: tf.TensorSpec(shape, tf.float32, name=INPUT)}]


@contextlib.contextmanager
def quiet():
    """Without the notes of converters on what they deprecate and fold."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


FORMATS = {
    "saved_model": Format("", {}, _write_saved_model, _load_saved_model),
    "litert": Format(
        "model.tflite",
        {"ai_edge_litert": "ai-edge-litert"},
        _write_litert,
        _load_litert,
    ),
    "onnx": Format(
        "model.onnx",
        {
            "tf2onnx": "tf2onnx",
            "onnx": "onnx",
            "onnxruntime": "onnxruntime",
        },
        _write_onnx,
        _load_onnx,
    ),
}
