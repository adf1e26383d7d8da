"""The main job, a function a stage: load, calibrate, check, search, refine, export, measure, report."""
