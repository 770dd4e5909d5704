"""Presets of `recipes/imagenet.py`.

The comment above each preset gives the command, the experiment it reproduces,
and the expected time and score. "Not measured" means that it was never run to
the end.
"""

_FRN_IMAGENET = {
    "dataset": "imagenet2012",
    "norm": "frn",
    "global_batch_size": 256,
    "train_steps": 300_000,
    "learning_rate": 0.1,
    "schedule": "cosine",
    "image_size": 299,
}

PRESETS = {
    # python recipes/imagenet.py --preset=frn_resnet50v2
    # FRN paper, ImageNet, ResNetV2-50: 8 GPUs, 300K steps, cosine decay.
    # The paper does not give weight decay, momentum and label smoothing.
    # Time and score: not measured.
    "frn_resnet50v2": {**_FRN_IMAGENET, "model": "ResNet50V2"},
    # python recipes/imagenet.py --preset=frn_inception_v3
    # FRN paper, ImageNet, InceptionV3, with warmup because it is sensitive to
    # the learning rate. The paper does not give the length of the warmup. Time
    # and score: not measured.
    "frn_inception_v3": {
        **_FRN_IMAGENET,
        "model": "InceptionV3",
        "warmup_epochs": 5,
    },
    # python recipes/imagenet.py --preset=frn_vgg_a
    # FRN paper, ImageNet, VGG-A with normalized dense layers, where FRN learns
    # its epsilon, with warmup. Time and score: not measured.
    "frn_vgg_a": {**_FRN_IMAGENET, "model": "vgg_a", "warmup_epochs": 5},
    # python recipes/imagenet.py --preset=rbn_resnet50
    # RBN paper, ImageNet, ResNet-50: 100 epochs, learning rate / 10 every 30.
    # Time and score: not measured.
    "rbn_resnet50": {
        "dataset": "imagenet2012",
        "model": "ResNet50",
        "norm": "rbn",
        "global_batch_size": 256,
        "train_epochs": 100,
        "learning_rate": 0.1,
        "schedule": "step",
        "image_size": 224,
    },
    # python recipes/imagenet.py --preset=digits
    # ResNet-20 on scikit-learn's digits with two replicas on one CPU.
    # Time and scores on 2 cores: the table in README.md.
    "digits": {
        "dataset": "digits",
        "model": "resnet20_cifar",
        "norm": "frn",
        "global_batch_size": 64,
        "train_epochs": 24,
        "learning_rate": 0.4,
        "schedule": "cosine",
        "warmup_epochs": 2,
        "image_size": 16,
        "virtual_replicas": 2,
        "log_every_steps": 5,
    },
}
