"""Device, worker processes and threads of a stage."""
