"""`python -m avllm` is the command `avllm`."""

from avllm.cli import script

if __name__ == "__main__":
    raise SystemExit(script())
