"""Starts the demo: `python demo.py --cfg-path eval_configs/nano_withaudio.yaml`. The same as `avllm demo`."""

import sys

from avllm.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
