"""Small runs of recipes/imagenet.py in this process."""

import json

from recipes import imagenet
from recipes.classification.config import Config
from recipes.classification.task import ImageClassification
from recipes.config import base as config_lib
from recipes.data import input_pipeline

# Every run measures its input first.
input_pipeline.MEASURED_SECONDS = 0.05

TASK = ImageClassification()
TINY = {
    "dataset": "digits",
    "model": "resnet2_cifar",
    "norm": "frn",
    "global_batch_size": 64,
    "train_steps": 3,
    "image_size": 8,
    "virtual_replicas": 1,
    "log_every_steps": 1,
}


def make_config(**flags):
    return config_lib.make_config(Config, {**TINY, **flags})


def run(workdir, **flags):
    """Runs and returns the summary and the metrics entries."""
    config = make_config(workdir=str(workdir), **flags)
    imagenet.run(config)
    return summary(workdir), rows(workdir)


def summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
