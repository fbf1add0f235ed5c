"""Writes a Kedro environment for a folder of images, with a reason for every parameter."""
