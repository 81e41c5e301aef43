#!/usr/bin/env bash
# Everything that needs a GPU, in one command and without network: `benchmarks/gpu_suite.sh [--quick]`.
# The stages and their limits are in gpu_suite.py; all arguments go there.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python benchmarks/gpu_suite.py "$@"
