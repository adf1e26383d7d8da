"""Hardware as data: what a device is, read from YAML or from the machine itself."""
