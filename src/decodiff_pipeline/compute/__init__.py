"""How much of a machine a stage uses: the device, worker processes, and threads of each."""
