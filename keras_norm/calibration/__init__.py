"""Conversion that keeps the accuracy: fits new norms to unlabeled examples."""
