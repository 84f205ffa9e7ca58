#!/bin/bash
# Everything that docs/lab/gpu.md wants measured on a CUDA device; ends within 10 minutes (time limits of its parts).
# Run in the repository root: bash docs/lab/experiments/measure_gpu.sh OUTPUT_FOLDER
# Each part writes its own files, so that a part that fails or runs out of time loses nothing of the others.
OUT=${1:?usage: measure_gpu.sh OUTPUT_FOLDER}
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}  # what is carried along lies in a folder of it
mkdir -p "$OUT"
speed() { timeout "$1" $PYTHON docs/lab/experiments/networks_speed.py --device cuda -o "$OUT/$2.json" "${@:3}"; }
set -x

# 1. which form of the upsampled convolution pays (sets CONTRACTION_COST["cuda"])
timeout 45 $PYTHON docs/lab/experiments/upsampled_convolution.py --device cuda --batch 1 64 -o "$OUT/upsampled_convolution.json"
timeout 45 $PYTHON docs/lab/experiments/upsampled_convolution.py --device cuda --batch 32 --training \
    -o "$OUT/upsampled_convolution_training.json"

# 2. the goals: inference at batch 64 and 1, training at batch 32, eager and compiled, beside nnU-Net's network
MAIN="nnunet_plain levit_unet_384 levit_unet_128s unet2022_tiny"
speed 100 inference --networks $MAIN --batch 64 --modes inference folded compiled
speed 60 inference_one --networks $MAIN --batch 1 --modes inference folded graphs
speed 110 training --networks $MAIN --batch 32 --modes training training_compiled
speed 35 resenc --networks nnunet_resenc_m levit_unet_192 --batch 64 --modes inference folded compiled
speed 45 families --networks transfuse_s transunet unetr2d cats2d --batch 64 1 --modes inference folded
speed 35 families_training --networks transfuse_s transunet --batch 32 --modes training

# 3. time and memory against patch size and batch
timeout 70 $PYTHON -m nnunetv2_levit.cli benchmark --device cuda --batch 8 --patch 128 256 512 1024 --modes folded inference \
    --networks nnunet_plain levit_unet_384 unet2022_tiny --repetitions 5 -o "$OUT/scaling_patch.json"
timeout 50 $PYTHON -m nnunetv2_levit.cli benchmark --device cuda --batch 1 4 16 64 256 --modes inference \
    --networks nnunet_plain levit_unet_384 --repetitions 5 --no-memory -o "$OUT/scaling_batch.json"
