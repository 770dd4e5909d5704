"""Batches of inputs from arrays, datasets, folders of images and files."""
