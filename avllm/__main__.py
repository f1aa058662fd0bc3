"""`python -m avllm` is the command `avllm`."""

from avllm.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
