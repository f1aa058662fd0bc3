"""What training costs, beside the same work done plainly.

python -m benchmarks.train [--json] [--rounds N]
"""

from benchmarks.common import arguments, machine, report
from benchmarks.features import features_figures
from benchmarks.train_loop import loop_figures


def main() -> None:
    args = arguments("Steps of training, and features stored for them.").parse_args()
    figures = {**features_figures(args.rounds), **loop_figures(args.rounds)}
    report(figures, machine("torch", "transformers", "accelerate", "av"), as_json=args.json)


if __name__ == "__main__":
    main()
