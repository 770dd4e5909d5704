"""RetinaNet: what recipes/coco.py trains."""
