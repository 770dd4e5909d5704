"""Presets: named sets of settings that differ from the defaults.

The comment above each preset gives the command, what it reproduces, and the
expected time and score. "Not measured" means that no complete run exists.
"""


def _frn_coco(global_batch_size):
    """FRN paper, section 4.3: M images per step, 125K * 64 / M steps.

    The learning rate is base * M / 64, with the best base of 0.01, 0.05 and
    0.1. Set --learning_rate to try the other values.
    """
    return {
        "dataset": "coco/2017",
        "model": "ResNet101",
        "norm": "frn",
        "image_size": 1024,
        "global_batch_size": global_batch_size,
        "train_steps": 125_000 * 64 // global_batch_size,
        "learning_rate": 0.05,
        "schedule": "cosine",
        "momentum": 0.9,
        "weight_decay": 4e-4,
    }


PRESETS = {
    # python recipes/coco.py --preset=frn_resnet101_64
    # FRN paper, COCO, RetinaNet from scratch, 8 images per GPU on 8 GPUs. The
    # paper does not give the schedule. Time and score: not measured.
    "frn_resnet101_64": _frn_coco(64),
    # python recipes/coco.py --preset=frn_resnet101_32
    # The same with 4 images per GPU. Time and score: not measured.
    "frn_resnet101_32": _frn_coco(32),
    # python recipes/coco.py --preset=frn_resnet101_16
    # The same with 2 images per GPU. Time and score: not measured.
    "frn_resnet101_16": _frn_coco(16),
    # python recipes/coco.py --preset=frn_resnet50
    # Smaller, for machines with fewer GPUs: ResNet-50, 640 px, scale jitter.
    # Time and score: not measured.
    "frn_resnet50": {
        **_frn_coco(16),
        "model": "ResNet50",
        "image_size": 640,
        "train_steps": 180_000,
        "scale_jitter_min": 0.5,
        "scale_jitter_max": 2.0,
    },
    # python recipes/coco.py --preset=trees
    # Trees on tiles of an aerial photo with two replicas on one CPU.
    # Time and scores on 2 cores: see the table in docs/results.md.
    "trees": {
        "dataset": "trees",
        "model": "resnet_small",
        "norm": "frn",
        "image_size": 128,
        "global_batch_size": 8,
        "train_steps": 1000,
        "optimizer": "adamw",
        "learning_rate": 0.008,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup_epochs": 1,
        "max_level": 6,
        "pyramid_filters": 64,
        "head_depth": 2,
        "anchor_size": 2.0,
        "eval_batch_size": 32,
        "eval_every_steps": 250,
        "eval_train": True,
        "virtual_replicas": 2,
        "log_every_steps": 10,
    },
}
