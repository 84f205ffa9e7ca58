#!/bin/bash
# The comparison of docs/lab/recipes.md on a CUDA device: full patch and batch as nnU-Net plans them, 50 epochs each.
# Run in the repository root: bash docs/lab/experiments/pocket_gpu.sh [TRAINER...]
# nnUNet_raw, nnUNet_preprocessed and nnUNet_results are set, and dataset 27 is converted and planned:
#     nnunetv2_levit convert acdc -i ACDC -d 27 && nnunetv2_levit plan -d 27 -c 2d --verify_dataset_integrity
# After LIMIT seconds trainings finish their epoch, save and stop, and the script ends with 75: the same command goes on,
# and what is done is skipped. Rows and evaluations go to the folder OUT, without it to docs/lab/results/pocket.
# PARALLEL trainings share the GPU; their seconds per epoch are then no measurement.
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}  # what is carried along lies in a folder of it
FOLD=${FOLD:-0}
EPOCHS=${EPOCHS:-50}
LIMIT=${LIMIT:-540}
PARALLEL=${PARALLEL:-1}
DEVICE=${DEVICE:-cuda}
export nnUNet_n_proc_DA=${nnUNet_n_proc_DA:-$((15 / PARALLEL))}
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/inductor}
export POCKET_RESULTS=${POCKET_RESULTS:-$OUT}
TRAINERS=${*:-nnUNetTrainer LeViTUNetTrainer_unetlevels_ds UNet2022Trainer_unetlevels LeViTUNetTrainer UNet2022Trainer HybridRecipeTrainer}
FINAL=--final
[[ $FOLD == 1 || $FOLD == 2 ]] && FINAL=
STOPPED=75

train() {
    local left=$((LIMIT - SECONDS))
    ((left > 60)) || exit $STOPPED  # too little to start in and train an epoch
    # a training stops after its epoch when asked to; a prediction ends at once and goes on the next time
    exec timeout --preserve-status --signal TERM --kill-after 45 $left \
        "$PYTHON" docs/lab/experiments/pocket_benchmark.py run --trainer "$1" --configuration 2d --plans nnUNetPlans \
        --fold "$FOLD" --epochs "$EPOCHS" --device "$DEVICE" $FINAL --c --once
}

names=() jobs=()
for trainer in $TRAINERS; do
    while (($(jobs -rp | wc -l) >= PARALLEL)); do sleep 0.2; done
    train "$trainer" &
    names+=("$trainer") jobs+=($!)
done
result=0
for index in "${!jobs[@]}"; do
    wait "${jobs[index]}"
    case $? in
        0) echo "${names[index]}: done" ;;
        $STOPPED | 137 | 143) echo "${names[index]}: not done yet, the same command goes on" && result=$STOPPED ;;
        *) echo "${names[index]}: failed" && ((result = result == 0 ? 1 : result)) ;;
    esac
done
exit $result
