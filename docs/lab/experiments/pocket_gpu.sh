#!/bin/bash
# The comparison of docs/lab/recipes.md on a CUDA device: full patch and batch as nnU-Net plans them, 50 epochs each.
# Run in the repository root: bash docs/lab/experiments/pocket_gpu.sh [TRAINER...]; what is done is skipped, and --c goes on.
# nnUNet_raw, nnUNet_preprocessed and nnUNet_results are set, and dataset 27 is converted and planned:
#     nnunetv2_levit convert acdc -i ACDC -d 27 && nnunetv2_levit plan -d 27 -c 2d --verify_dataset_integrity
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}  # what is carried along lies in a folder of it
FOLD=${FOLD:-0}
EPOCHS=${EPOCHS:-50}
BENCHMARK="$PYTHON docs/lab/experiments/pocket_benchmark.py"
export nnUNet_n_proc_DA=${nnUNet_n_proc_DA:-12}
TRAINERS=${*:-nnUNetTrainer HybridRecipeTrainer LeViTUNetTrainer LeViTUNetTrainer_unetlevels_ds UNet2022Trainer UNet2022Trainer_unetlevels}
FINAL=--final
[[ $FOLD == 1 || $FOLD == 2 ]] && FINAL=
for trainer in $TRAINERS; do
    $BENCHMARK run --trainer "$trainer" --configuration 2d --plans nnUNetPlans --fold "$FOLD" --epochs "$EPOCHS" \
        --device cuda $FINAL --c || echo "$trainer: not done"
done
$PYTHON docs/lab/experiments/pocket_report.py $FINAL --fold "$FOLD"
