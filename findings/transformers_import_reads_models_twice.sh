#!/usr/bin/env bash
# transformers 5.24.0 (5.23.0 as well): `from transformers import LlamaForCausalLM` reads the source text of every file
# of all models (1,698 files) twice, and imports torch._dynamo, sympy and torch.distributed.tensor, which a Llama in
# eager mode on one process does not use. Seen on CPython 3.11 with torch 2.13.0 (CPU build).
# The list of models is kept by a `functools.lru_cache` of the default 128 entries, and asked for twice, folder by folder;
# there are more folders than entries, so that nothing is found again: 0 hits.
# torch._dynamo comes in through decorators (`torch.compiler.disable`, `torch._dynamo.assume_constant_result`) that run
# while modules of transformers are imported.
# Exit 0: still so. Exit 1: changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q transformers==5.24.0 torch==2.13.0 numpy==2.4.6
cat > "$work/count.py" <<'PY'
import builtins, collections, os, sys

opened, real = collections.Counter(), builtins.open

def counting(file, *args, **kwargs):
    if isinstance(file, str) and os.sep.join(("transformers", "models", "")) in file and file.endswith(".py"):
        opened[file] += 1
    return real(file, *args, **kwargs)

builtins.open = counting
import transformers
from transformers import LlamaForCausalLM  # noqa: F401

builtins.open = real
twice = sum(count >= 2 for count in opened.values())
heavy = [name for name in ("torch._dynamo", "sympy", "torch.distributed.tensor") if name in sys.modules]
from transformers.utils.import_utils import create_import_structure_from_path

cache = create_import_structure_from_path.cache_info()
print(cache)
print(f"transformers {transformers.__version__}: {len(opened)} model files read, {twice} of them at least twice; imported: {heavy}")
is_so = len(opened) > 1000 and twice == len(opened) and len(heavy) == 3 and cache.hits == 0
sys.exit(0 if is_so else 1)
PY
"$work/venv/bin/python" "$work/count.py"
