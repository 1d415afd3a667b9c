"""The process: device, versions, ranks, signals, log, exit codes."""
