#!/usr/bin/env bash
# Measures how many pods a second are scheduled, with the stock scheduler and with
# everynode in turns, and compares the two: hack/perf.sh PAIRS OUTPUT
# CASES names the benchmarks in test/perf/perf_test.go, all of them by default.
# Wants bin/etcd, bin/perf.test and bin/benchstat.
set -euo pipefail
cd "$(dirname "$0")/.."
pairs=$1 output=$2
mkdir -p "$(dirname "$output")"
output=$(realpath "$output")
bin=$PWD/bin
# The benchmark reads files beside its API server's source. With trimmed paths, it finds them by these.
export TEST_WORKSPACE=. TEST_SRCDIR
TEST_SRCDIR=$(go env GOMODCACHE)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
: >"$output"
for pair in $(seq "$pairs"); do
  for benchmark in ${CASES:-Daemonset Basic Full Join Hopeless}; do
    # Who comes first takes turns too.
    order='stock everynode'
    if ((pair % 2 == 0)); then order='everynode stock'; fi
    for scheduler in $order; do
      echo "pair $pair of $pairs: $benchmark, $scheduler" >&2
      (cd test/perf && ARTIFACTS=$logs PATH="$bin:$PATH" "$bin/perf.test" -test.run '^$' -test.benchtime 1ns -test.timeout 30m -data-items-dir "$logs" \
        -test.bench "^BenchmarkPerfScheduling$benchmark\$/^scheduler=$scheduler\$" \
        -perf-scheduling-label-filter "${PERF_LABEL:-performance}") >"$logs/output" 2>&1 || { tail -50 "$logs/output" >&2; exit 1; }
      grep '^Benchmark.*SchedulingThroughput' "$logs/output" | tee -a "$output" | grep -o '[0-9.]* SchedulingThroughput/Average' >&2
    done
  done
done
bin/benchstat -col '/scheduler@(stock everynode)' -filter '.unit:(SchedulingThroughput/Average)' "$output"
