"""Compares the speed of the ImageNet training input with JPEG decoding.

JPEGs go through the training input (random crop, resize to 224, flip, color)
and through libjpeg alone with the same crops, in turn. The results are medians
over the rounds. Decoding is the limit: no input pipeline that decodes these
crops can be faster.

  python benchmarks/input.py --wheel=foolbox-3.3.4-py3-none-any.whl
  python benchmarks/input.py --folder=/data/imagenet/train --json=input.json

The wheel holds 20 images of ImageNet, 512 pixels wide; it comes with
`pip download --no-deps foolbox==3.3.4`.
"""

import json
import os
import pathlib
import statistics
import sys
import time
import zipfile

sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import tensorflow as tf  # noqa: E402
from absl import app  # noqa: E402
from absl import flags  # noqa: E402

from recipes.classification import datasets  # noqa: E402
from recipes.classification import examples  # noqa: E402
from recipes.classification import preprocessing  # noqa: E402
from recipes.config.base import Config  # noqa: E402
from recipes.data.decode_errors import BadImages  # noqa: E402

SIZE = 224
NUM_CHANNELS = 3

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "folder", None, "Folder of JPEG files, searched recursively."
)
flags.DEFINE_string("wheel", None, "Wheel file with ImageNet images.")
flags.DEFINE_integer(
    "num_images", 400, "Number of images per round; files are repeated."
)
flags.DEFINE_integer(
    "num_rounds", 7, "Number of rounds. Each one runs all contenders."
)
flags.DEFINE_string("json", None, "JSON file to write the medians to.")


def read_images():
    """Reads the JPEG files that the flags name."""
    if FLAGS.folder:
        root = pathlib.Path(FLAGS.folder)
        paths = sorted(root.rglob("*.[jJ][pP]*[gG]"))[: FLAGS.num_images]
        return [path.read_bytes() for path in paths]
    with zipfile.ZipFile(FLAGS.wheel) as wheel:
        names = [name for name in wheel.namelist() if "/imagenet_" in name]
        return [wheel.read(name) for name in sorted(names)]


def contenders(images):
    """Returns a dict from names to functions of an index, the limit last."""
    images = tf.constant(images)
    config = Config(augmentation="inception", image_size=SIZE)
    split = datasets.Split(
        num_examples=len(images),
        read=lambda i: (images[i], tf.constant(0, tf.int64)),
        name=str,
    )
    source = datasets.Source(0, NUM_CHANNELS, split, split, "inception")
    preparation = preprocessing.training_preprocessing(config, source)
    bad_images = BadImages("the benchmark", config.on_bad_image)

    def index_and_seed(i):
        return i % len(images), tf.stack([i, i])

    def train(i):
        index, seed = index_and_seed(i)
        return examples.read_example(
            split, index, preparation, seed, bad_images
        )

    def unguarded(i):
        index, seed = index_and_seed(i)
        return preparation(images[index], seed)

    def decode(i):
        index, seed = index_and_seed(i)
        return preparation.crop_jpeg(images[index], seed)

    return {
        "training input": train,
        "without naming bad images": unguarded,
        "decoding the same crops": decode,
    }


def seconds(function):
    """Measures the processor time of a round, which is robust to other load."""
    rows = tf.data.Dataset.range(FLAGS.num_images).map(
        function, num_parallel_calls=os.cpu_count()
    )
    iterator = iter(rows)
    next(iterator)
    start = time.process_time()
    for _ in iterator:
        pass
    return time.process_time() - start


def main(_):
    if bool(FLAGS.folder) == bool(FLAGS.wheel):
        raise app.UsageError("set either --folder or --wheel")
    functions = contenders(read_images())
    rounds = {name: [] for name in functions}
    for _ in range(FLAGS.num_rounds):
        for name, function in functions.items():
            rounds[name].append(seconds(function))
    rates = {
        name: (FLAGS.num_images - 1) / statistics.median(times)
        for name, times in rounds.items()
    }
    limit = list(rates.values())[-1]
    print(f"{FLAGS.num_rounds} rounds of {FLAGS.num_images} images\n")
    print("| | images/s per core | of the limit |\n| --- | --- | --- |")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {rate / limit:.2f} |")
    if FLAGS.json:
        content = {"images_per_second_a_core": rates}
        path = pathlib.Path(FLAGS.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    app.run(main)
