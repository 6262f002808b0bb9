"""The commands: each module parses, calls, prints. What they call lives in `iql_ray`."""
