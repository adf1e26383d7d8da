"""Run an exported package on a device, without torch."""
