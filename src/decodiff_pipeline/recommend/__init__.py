"""An environment for a folder of images: parameters, each with the reason for its value."""
