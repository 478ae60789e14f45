"""Datasets on this machine: where pictures come from, whether they are fit, and what their manifest says."""
