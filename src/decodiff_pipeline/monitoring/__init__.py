"""Drift monitoring: compares recent images with the model's reference images."""
