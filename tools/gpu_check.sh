#!/usr/bin/env bash
# All that is worth a GPU's time, within 9 minutes, on a machine that has only a GPU, python3 with
# torch 2.11 (and better timm) and the stripped binary. No cargo, no network.
#
#   tools/gpu_check.sh BINARY SHARDS OUT
#
#   BINARY   simdino, built against torch 2.11: `cargo build -p trainer`, then `strip -o FILE`
#   SHARDS   folder with cifar10-train-*.tar.gz and cifar10-test-*.tar.gz
#   OUT      folder for everything it finds; OUT/summary.md is what to read
#
# 1. numeric self-check of the device against the CPU
# 2. the training step in bf16, ViT-S/16 and ViT-B/16: simdino, PyTorch eager, torch.compile; the other
#    three methods with ViT-S/16
# 3. 200 steps of each method in bf16 on CIFAR-10: the loss must be finite and fall
# 4. the k-NN curves of SimDINO and DINO on CIFAR-10 at equal budget, half of the time left for each
#
# Every part has a limit of its own, and one that fails leaves the others to run. Exit code 0: all
# parts ended well. Variables for a try on a machine without GPU: BUDGET_S (540), STEPS (20),
# DEVICE (cuda), METHOD_STEPS (200), STEP_OVERRIDES and TRAIN_OVERRIDES (key=value words).
set -uo pipefail

if [[ $# -ne 3 ]]; then
    echo "usage: tools/gpu_check.sh BINARY SHARDS OUT" >&2
    exit 2
fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
binary="$(realpath -- "$1")"
shards="$(realpath -- "$2")"
mkdir -p -- "$3" || exit 1
out="$(realpath -- "$3")"
cd "$root" || exit 1

budget="${BUDGET_S:-540}"
steps="${STEPS:-20}"
device="${DEVICE:-cuda}"
read -r -a step_overrides <<<"${STEP_OVERRIDES:-}"
read -r -a train_overrides <<<"${TRAIN_OVERRIDES:-}"
python="${PYTHON:-python3}"
reserve=15 # seconds kept for the summary
keep=$((budget / 3)) # and, before it starts, for the CIFAR-10 run
ok=1

say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
left() { echo $((budget - reserve - SECONDS)); }
fail() {
    say "$*"
    printf '%s\n' "$*" >>"$out/failures.txt"
    ok=0
}

# part NAME LIMIT_S COMMAND...: stdout to NAME.out, stderr to NAME.err, both kept.
part() {
    local name="$1" limit="$2"
    shift 2
    if (($(left) - keep < limit)); then limit=$(($(left) - keep)); fi
    if ((limit < 10)); then
        fail "$name: not run, no time left"
        return 1
    fi
    say "$name (at most $limit s)"
    timeout --kill-after=10 --signal=TERM "$limit" "$@" >"$out/$name.out" 2>"$out/$name.err"
    local status=$?
    if ((status == 0)); then return 0; fi
    if ((status == 124 || status == 137)); then
        fail "$name: stopped after its limit of $limit s"
    else
        fail "$name: exit status $status: $(tail -n 1 "$out/$name.err")"
    fi
    return "$status"
}

rm -f -- "$out"/failures.txt "$out"/*.out "$out"/*.err
rm -rf -- "$out"/cifar10_*/ "$out"/steps_*/
if [[ ! -x "$binary" ]]; then
    echo "gpu_check: $binary is not an executable file" >&2
    exit 1
fi
torch="$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__))')" || {
    echo "gpu_check: $python cannot import torch; set PYTHON to one that can" >&2
    exit 1
}
export LD_LIBRARY_PATH="$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

# 1. Right numbers first: the rest is worth nothing without them.
part self_check 90 "$binary" inspect env --self-check --json

# 2. The step: simdino, then its peers on the config that it says it ran.
for size in vits16 vitb16; do
    config="configs/simdino_${size}_in1k.yaml"
    settings=("run.device=$device" train.precision=bf16 train.batch_size=128 train.accumulate=1)
    settings+=("${step_overrides[@]}")
    if part "step_${size}_simdino" 60 "$binary" bench step "$config" "${settings[@]}" \
        --json --warmup 5 --steps "$steps"; then
        tail -n 1 "$out/step_${size}_simdino.out" >"$out/step_${size}_config.json"
        part "step_${size}_eager" 60 "$python" benches/peers/step.py \
            --config-json "@$out/step_${size}_config.json" --mode eager --warmup 5 --steps "$steps"
    fi
done
for method in simdinov2 dino dinov2; do
    part "step_vits16_$method" 45 "$binary" bench step "configs/${method}_vits16_in1k.yaml" \
        "run.device=$device" train.precision=bf16 train.batch_size=128 train.accumulate=1 \
        "${step_overrides[@]}" --json --warmup 5 --steps "$steps"
done

# CIFAR-10 straight from its shards. Prototypes as fit 50,000 images.
train="$shards/cifar10-train-*.tar.gz"
test="$shards/cifar10-test-*.tar.gz"
settings_of() {
    echo "method=$1"
    case "$1" in dino | dinov2) echo head.prototypes=4096 ;; esac
}

# 3. Each method for 200 steps.
for method in simdino simdinov2 dino dinov2; do
    read -r -d '' -a settings < <(settings_of "$method" && printf '\0')
    part "steps_$method" 40 "$binary" train configs/cifar10_gpu.yaml "${settings[@]}" \
        "run.device=$device" "run.dir=$out" "run.name=steps_$method" "data.path=$train" \
        "train.stop_after=${METHOD_STEPS:-200}" train.log_every=10 "${train_overrides[@]}"
    rm -rf -- "$out/steps_$method/checkpoints" "$out/steps_$method/weights"
done

# torch.compile last: it takes a minute or two to begin, and is worth the least.
for size in vits16 vitb16; do
    if [[ -f "$out/step_${size}_config.json" ]]; then
        part "step_${size}_compile" 100 "$python" benches/peers/step.py \
            --config-json "@$out/step_${size}_config.json" --mode compile \
            --warmup 5 --steps "$steps"
    fi
done

# 4. A run that meets the end of its time writes a checkpoint and stops; its curve counts, and the
# k-NN of that checkpoint is measured apart.
# curve METHOD SECONDS
curve() {
    local method="$1" seconds="$2" name="cifar10_$1" settings status
    if ((seconds < 30)); then
        fail "$name: not run, no time left"
        return
    fi
    read -r -d '' -a settings < <(settings_of "$method" && printf '\0')
    say "$name (at most $seconds s)"
    timeout --kill-after=10 --signal=TERM $((seconds - 10)) \
        "$binary" train configs/cifar10_gpu.yaml "${settings[@]}" \
        "run.device=$device" "run.dir=$out" "run.name=$name" --resume never \
        "data.path=$train" "probe.train_path=$train" "probe.test_path=$test" \
        "${train_overrides[@]}" >"$out/$name.out" 2>"$out/$name.err"
    status=$?
    if ((status == 0)); then
        say "$name: finished"
    elif ((status == 3 || status == 124)); then
        say "$name: stopped at the end of its time; the curve so far counts"
        printf 'stopped at the end of its time\n' >"$out/${name}_stopped.out"
        part "${name}_knn" "$knn_seconds" "$binary" eval knn --weights "$out/$name" \
            --train "$train" --test "$test" --max-train 5000 --max-test 5000 \
            --device "$device" --json
    else
        fail "$name: exit status $status: $(tail -n 1 "$out/$name.err")"
    fi
    # Weights and checkpoints are large, and nobody asked for them here.
    rm -rf -- "$out/$name/checkpoints"
}

keep=0
knn_seconds=45
share=$((($(left) - 2 * knn_seconds) / 2))
curve simdino "$share"
curve dino "$share"

"$python" tools/gpu_check.py "$out" >"$out/summary.md" || fail "the summary failed"
say "done: $out/summary.md"
cat -- "$out/summary.md"
((ok == 1))
