"""Arguments of the program keras-norm, whose code is in `commands`.

Imports nothing from the package, which would import Keras: --help should be
instant.
"""

import argparse
import json

# Scales of the pixels of image files; the last three are the modes of
# keras.applications.imagenet_utils.preprocess_input.
PIXELS = ("0..255", "0..1", "tf", "caffe", "torch")
MODEL = (
    "the model: a .keras or .h5 file, also of Keras 2, or applications:NAME "
    "for a model of keras.applications, such as applications:ResNet50"
)
PATTERNS = (
    "a layer's name or path, with the wildcards * and ?; the name of a nested "
    "model matches all layers inside it"
)


def parse(arguments, norms, version, examples):
    """Parses the arguments; exits the program if they are invalid.

    Args:
        arguments: List of strings, or None for those of the process.
        norms: List of the names of the norms.
        version: Version of the package.
        examples: Text to print at the end of `--help`.
    """
    parser = argparse.ArgumentParser(
        prog="keras-norm",
        description="Lists the batch normalization of a Keras model, converts "
        "it to another normalization, folds it for inference, recomputes "
        "or pools its moving statistics, or upgrades the file of an old Keras.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"keras-norm {version}",
        help="print the version of keras-norm and exit",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND"
    )
    _define_inspect(commands)
    _define_convert(commands, norms)
    _define_fold(commands)
    _define_recalibrate(commands)
    _define_pool(commands)
    _define_upgrade(commands)
    return parser.parse_args(arguments)


def _define_inspect(commands):
    command = commands.add_parser(
        "inspect",
        help="list the normalization layers of a model",
        description="Lists every normalization layer of a model with its path, "
        "its input shape, the activations that follow it, and, for batch "
        "normalization, whether `convert` can replace it.",
    )
    command.add_argument("model", metavar="MODEL", help=MODEL)
    _define_common(command, writes=False)


def _define_convert(commands, norms):
    command = commands.add_parser(
        "convert",
        help="replace batch normalization by another norm",
        description="Writes a new model with another normalization, and prints "
        "a table of the changes to every layer. The old file is not changed.",
    )
    _define_files(command)
    command.add_argument(
        "--to",
        metavar="NORM",
        required=True,
        help="replace batch normalization by this norm, one of "
        f"{', '.join(norms)}",
    )
    command.add_argument(
        "--arg",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_argument,
        help="pass an argument to the new layers, such as epsilon=1e-5; "
        "repeatable",
    )
    _define_selection(command, "convert")
    command.add_argument(
        "--activation",
        choices=("auto", "keep", "tlu"),
        default="auto",
        help="conversion of the ReLUs behind replaced layers: auto converts "
        "them to TLU for frn and keeps them for other norms; keep keeps all; "
        "tlu converts ReLU to TLU and ReLU6 to min(TLU, 6) for any norm "
        "(default: auto)",
    )
    _switch(
        command,
        "--verify",
        "run both models on random inputs and report the largest difference "
        "of their outputs, an error if they should be equivalent",
    )
    _switch(
        command,
        "--keep-unreachable",
        "keep batch normalization outside the functional graph, such as "
        "inside wrappers and composite layers, instead of raising an error",
    )
    _define_calibration(command)
    _define_common(command)


def _define_calibration(command):
    _define_data(command, "fit the converted model to")
    command.add_argument(
        "--refit",
        choices=("all", "next", "affine", "none"),
        default="all",
        help="parts that are fitted to --data: affine, gamma and beta of the "
        "new norms; next, also the linear layers between them; all, also those "
        "behind the last norm (default: all)",
    )
    command.add_argument(
        "--epsilon-ratio",
        metavar="R",
        type=float,
        default=0.0,
        help="learned epsilon of frn relative to the mean square of a channel "
        "on --data; the larger, the closer to batch normalization "
        "(default: 0, the fixed epsilon of the paper)",
    )
    command.add_argument(
        "--distill-steps",
        metavar="N",
        type=int,
        default=0,
        help="train for N steps towards the outputs of the old model on --data "
        "(default: 0)",
    )
    command.add_argument(
        "--distill-batch-size",
        metavar="N",
        type=int,
        default=32,
        help="examples in a batch of such a step (default: 32)",
    )


def _define_fold(commands):
    command = commands.add_parser(
        "fold",
        help="fold batch normalization into the layers next to it",
        description="Writes a new model for inference whose batch "
        "normalization is folded into the convolutions and dense layers before "
        "or behind it, and prints a table of the layers that are folded and of "
        "those that stay, with the reasons. The old file is not changed.",
    )
    _define_files(command)
    _define_selection(command, "fold")
    command.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not compare the outputs of both models on random inputs; a "
        "difference is an error otherwise",
    )
    _define_common(command)


def _define_recalibrate(commands):
    command = commands.add_parser(
        "recalibrate",
        help="recompute the moving statistics of batch normalization",
        description="Writes a new model whose moving statistics are computed "
        "from data, and prints a table of their changes. The old file is not "
        "changed.",
    )
    command.add_argument("model", metavar="IN", help=MODEL)
    command.add_argument("out", metavar="OUT", help="the .keras file to write")
    _define_data(command, "recalibrate", required=True)
    command.add_argument(
        "--method",
        choices=("exact", "batch"),
        default="exact",
        help="exact: moments of every layer's input at inference; batch: "
        "averaged moments of training batches (default: exact)",
    )
    command.add_argument(
        "--prior",
        metavar="N",
        type=float,
        default=0,
        help="mix in the old statistics as if they came from N examples "
        "(default: 0)",
    )
    command.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        help=f"recalibrate only the layers that match PATTERN: {PATTERNS}; "
        "repeatable",
    )
    _define_common(command)


def _define_pool(commands):
    command = commands.add_parser(
        "pool",
        help="combine the moving statistics of several copies of a model",
        description="Writes a new model with the moving statistics of the "
        "examples of all copies. The old files are not changed.",
    )
    command.add_argument(
        "models",
        metavar="IN",
        nargs="+",
        help="a copy of the model: a .keras file or a legacy .h5 file",
    )
    command.add_argument("out", metavar="OUT", help="the .keras file to write")
    command.add_argument(
        "--counts",
        metavar="N,N",
        required=True,
        type=_counts,
        help="number of examples behind each copy, in the order of the copies",
    )
    _switch(
        command,
        "--average-weights",
        "average the other weights too; they must be equal otherwise",
    )
    _define_common(command)


def _define_upgrade(commands):
    command = commands.add_parser(
        "upgrade",
        help="write a model of an older Keras, such as Keras 2, for this Keras",
        description="Writes a model of an older Keras for this Keras, with "
        "the same outputs. What this Keras would read differently is "
        "translated, or is an error. The old file is not changed.",
    )
    command.add_argument("model", metavar="OLD", help=MODEL)
    command.add_argument("out", metavar="NEW", help="the .keras file to write")
    _switch(
        command,
        "--verify",
        "check on random inputs that the new file has the same outputs",
    )
    _define_common(command)


def _define_data(command, verb, required=False):
    """Defines the examples that a command reads."""
    command.add_argument(
        "--data",
        metavar="PATH",
        required=required,
        help=f"{verb} the examples in PATH, without labels: an .npy file with "
        "an array, an .npz file with an array for each input name, or a folder "
        "of images, which is searched recursively",
    )
    command.add_argument(
        "--array",
        metavar="NAME",
        help="take this array, such as x_train, from an .npz file of several",
    )
    command.add_argument(
        "--pixels",
        choices=PIXELS,
        help="range of the pixels that the model was trained with, required "
        "for a folder: 0..255, also for models that rescale images themselves; "
        "0..1; or a mode of keras.applications, of which tf is -1..1, as in "
        "the recipes",
    )
    command.add_argument(
        "--image-size",
        metavar="N",
        type=int,
        help="height and width of the images (default: those of the model's "
        "input); images are resized and their center is cropped",
    )
    command.add_argument(
        "--num-images",
        metavar="N",
        type=int,
        help="use N examples, spread evenly over the data (default: all)",
    )
    command.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        help="examples of --data in a batch (default: 32)",
    )


def _define_files(command):
    """Defines the files that a command reads and writes."""
    command.add_argument("model", metavar="IN", help=MODEL)
    command.add_argument(
        "out",
        metavar="OUT",
        nargs="?",
        help="the .keras file to write; leave it out with --plan",
    )
    _switch(
        command, "--plan", "print the planned changes without writing a file"
    )
    command.add_argument(
        "--inputs",
        metavar="FILE.npy",
        help="also verify on the inputs in this file: an .npy file with an "
        "array, or an .npz file with an array for each input name",
    )


def _switch(command, name, help):
    command.add_argument(name, action="store_true", help=help)


def _define_selection(command, verb):
    command.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        help=f"{verb} only the batch normalization that matches PATTERN: "
        f"{PATTERNS}; repeatable",
    )
    command.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        help="keep the batch normalization that matches PATTERN; repeatable",
    )


def _define_common(command, writes=True):
    if writes:
        _switch(command, "--overwrite", "replace the output file if it exists")
    command.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    command.add_argument(
        "--weights",
        metavar="imagenet",
        choices=("imagenet",),
        help="download trained weights for applications:NAME (default: random "
        "initial weights)",
    )
    command.add_argument(
        "--import",
        metavar="MODULE",
        dest="modules",
        action="append",
        default=[],
        help="import a Python module that registers custom layers before the "
        "model is loaded; repeatable",
    )
    command.add_argument(
        "--builder",
        metavar="MODULE:FUNCTION",
        help="function that returns the model, for a file with weights only",
    )
    _switch(
        command,
        "--unsafe",
        "allow Python code in the file to run, which Lambda layers need, "
        "and accept implausible sizes; only for files that you trust",
    )


def _argument(text):
    """Parses `KEY=VALUE`; a value that is valid JSON is parsed as JSON."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form KEY=VALUE, such as epsilon=1e-5"
        )
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _counts(text):
    """Parses numbers that are separated by commas."""
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers such as 1000,3000"
        ) from error
