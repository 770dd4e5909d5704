"""Recomputing the moving statistics of batch normalization from data."""
