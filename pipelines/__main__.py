"""`iql-ray <command> ...`, the same as `python -m pipelines.<command> ...`: imports that command alone and calls it."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

COMMANDS = {
    "prepare": "turn logged data (Minari, D4RL HDF5, npz, Parquet) into a prepared dataset",
    "inspect": "look at a prepared dataset: what looks wrong, which settings it suggests, a page of pictures",
    "train": "train a policy on a prepared dataset, on one or several learners",
    "search": "search expectile, inverse temperature and more, as populations that share data and critics",
    "extract": "policies for other inverse temperatures, from the critics of a run",
    "finetune": "improve a trained agent online, with many rollout workers",
    "evaluate": "run a policy in its environment and report returns with intervals",
    "export": "a policy as a folder for numpy and safetensors alone, or as an ONNX graph",
    "serve": "answer requests for actions with a registered model, and follow its alias",
    "promote": "make a policy the champion of its name, if it is better than the one that is",
    "rollback": "make the champion before this one the champion again",
    "models": "list what is registered, or show where one version comes from",
    "sync": "send what a run could not log while its tracking server was away",
    "maze": "the paper's story on a toy maze, every method beside exact solutions, in one picture",
    "demo": "all of it on data that comes along, in minutes",
}
MISUSED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(overview(), file=sys.stderr)
        return MISUSED
    command, *rest = arguments
    if command in ("-h", "--help"):
        print(overview())
        return 0
    if command == "--version":
        print(f"iql-ray {importlib.metadata.version('iql-ray')}")
        return 0
    if command not in COMMANDS:
        print(f"iql-ray: error: {_unknown_command(command)}", file=sys.stderr)
        return MISUSED
    return importlib.import_module(f"pipelines.{command}").main(rest)


def overview() -> str:
    """What `iql-ray --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(
        [
            "usage: iql-ray COMMAND [OPTIONS]",
            "",
            "Implicit Q-learning from logged experience, on Ray.",
            "",
            *lines,
            "",
            "`iql-ray COMMAND --help` lists its options; `iql-ray --version` the version.",
            "The last line of every command's stdout is its result, as one JSON object.",
        ]
    )


def _unknown_command(command: str) -> str:
    nearest = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return f"unknown command '{command}'{hint} (commands: {', '.join(COMMANDS)})"


if __name__ == "__main__":
    sys.exit(main())
