#!/usr/bin/env bash
# Everything that needs a GPU, in one command: build, tests on the device, then every benchmark.
# Figures are appended to benchmarks/results/*.jsonl; arguments, e.g. --quick, go to the benchmarks.
set -euo pipefail
cd "$(dirname "$0")/.."
python -m pip install -q --no-build-isolation --no-deps -e .
python -m pytest -q -m gpu --junitxml=build/gate.xml
python benchmarks/kernels/run.py --device cuda --gate build/gate.xml "$@"
python benchmarks/round_graph.py --gate build/gate.xml
