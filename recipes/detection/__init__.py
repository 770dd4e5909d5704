"""Object detection with a RetinaNet, the task of `recipes/coco.py`."""
