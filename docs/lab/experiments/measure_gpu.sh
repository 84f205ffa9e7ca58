#!/bin/bash
# What docs/lab/gpu.md wants measured on a CUDA device, in two calls of less than 10 minutes each (the limits of the parts
# add up to 325 s and 540 s). Run in the repository root:
#     bash docs/lab/experiments/measure_gpu.sh scaling OUTPUT_FOLDER && bash docs/lab/experiments/measure_gpu.sh speed OUTPUT_FOLDER
# Each part writes its own file, and what compiles also as it goes: a part that fails or runs out of time loses little.
PART=${1:?usage: measure_gpu.sh scaling|speed OUTPUT_FOLDER}
OUT=${2:?usage: measure_gpu.sh scaling|speed OUTPUT_FOLDER}
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}  # what is carried along lies in a folder of it
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/inductor}  # the next call finds what this one compiled
mkdir -p "$OUT"
script() { timeout "$1" "$PYTHON" "docs/lab/experiments/$2.py" --device "$DEVICE" -o "$OUT/$3.json" "${@:4}"; }
benchmark() {
    timeout "$1" "$PYTHON" -m nnunetv2_levit.cli benchmark --device "$DEVICE" -o "$OUT/$2.json" "${@:3}"
    rm -f "$OUT/$2".{md,png}  # made from the JSON, and few files come back
}

scaling() {
    # which form of the upsampled convolution pays (sets CONTRACTION_COST["cuda"])
    script 45 upsampled_convolution upsampled_convolution --batch 1 64
    script 45 upsampled_convolution upsampled_convolution_training --batch 32 --training
    # the other networks, in one file
    script 45 networks_speed families --networks transfuse_s transunet unetr2d cats2d --batch 64 1 \
        --modes inference folded --autotune
    script 40 networks_speed families --networks transfuse_s transunet --batch 32 --modes training
    # memory and speed of training; time and memory against patch size and batch
    benchmark 50 training_memory --networks $MAIN --batch 32 --patch 224 --classes 9 --modes training
    benchmark 60 scaling_patch --networks nnunet_plain levit_unet_384 unet2022_tiny --batch 8 --patch 128 256 512 1024 \
        --modes folded inference --autotune
    benchmark 40 scaling_batch --networks nnunet_plain levit_unet_384 --batch 1 4 16 64 256 --patch 224 \
        --modes inference --autotune
}

speed() {  # the goals: inference at batch 64 and 1, training at batch 32, eager and compiled, beside nnU-Net's networks
    script 170 networks_speed inference --networks $MAIN --batch 64 --modes inference folded compiled --autotune
    script 220 networks_speed training --networks $MAIN --batch 32 --modes training training_compiled
    script 150 networks_speed inference_one --networks $MAIN --batch 1 --modes inference folded graphs --autotune
}

MAIN=${MAIN:-nnunet_plain nnunet_resenc_m levit_unet_384 levit_unet_128s unet2022_tiny}
set -x
case $PART in
    scaling | speed) "$PART" ;;
    *) echo "there is no part $PART: scaling or speed" >&2 && exit 2 ;;
esac
