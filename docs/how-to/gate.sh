#!/usr/bin/env bash
# Evaluates a checkpoint and gates it; for any CI that reads exit codes and JUnit.
#   CANDIDATE  checkpoint folder      DATA  folder with imagenet/, captions/ and so on
set -euo pipefail

evalharness run --ckpt "$CANDIDATE" --data-root "$DATA" --output-path out --suite quick --seeds 0,1,2 --no-progress

code=0
evalharness gate --baseline ci/baseline.toml --candidate out --policy ci/policy.toml \
    --junit gate.xml --markdown gate.md || code=$?
case $code in
    0) echo "no regression" ;;
    2) echo "undecided: run again with more seeds, see gate.md" ;;
    *) exit "$code" ;;
esac
