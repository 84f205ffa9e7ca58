#!/bin/bash
# Lines of a file, one after another, as sub-commands of pocket_benchmark.py on one core; once for each core:
#     for core in 0 1; do bash docs/lab/experiments/pocket_queue.sh $core queue.txt & done
# A line is, say: run --trainer nnUNetTrainer --fold 1 --budget-minutes 15 --c. Lines may be added while it runs; it ends
# when the file is empty. What a run prints goes to queue.txt.CORE.log.
core=$1
queue=$2
export OMP_WAIT_POLICY=PASSIVE MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296
while true; do
    line=$(flock "$queue.lock" bash -c 'head -n 1 "$0"; sed -i 1d "$0"' "$queue")
    [[ -z $line ]] && exit
    echo "$(date +%T) core $core: $line"
    # shellcheck disable=SC2086  # the line's words are arguments
    taskset -c "$core" "${PYTHON:-python}" docs/lab/experiments/pocket_benchmark.py $line >> "$queue.$core.log" 2>&1
    echo "$(date +%T) core $core ended with $?: $line"
done
