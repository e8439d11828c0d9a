#!/bin/sh
# demo.sh RK-GEMMA LIBRKLLMRT: export the demo checkpoint, ask it twice, say who answered.
set -eu
rk_gemma=$1
library=$2
bundle=build/demo-rk3588
question="What does failed to malloc npu memory mean?"

if ! "$rk_gemma" inspect "$bundle" >/dev/null 2>&1; then
    rm -rf "$bundle"
    "$rk_gemma" export demo/checkpoint -o "$bundle"
fi
export RK_GEMMA_LIBRKLLMRT="$library"

echo
echo "== 1. The simulated NPU answers (a librkllmrt.so that computes w8a8 on this machine)"
echo "> $question"
"$rk_gemma" run "$bundle" "$question" --temperature 0 --max-tokens 120 --backend npu

echo
echo "== 2. A board whose memory is used up, simulated: the NPU refuses, the CPU answers (llama.cpp)"
echo "> $question"
RK_GEMMA_SIM_PROFILE=board/profiles/npu-full.yaml \
    "$rk_gemma" run "$bundle" "$question" --temperature 0 --max-tokens 120 --backend auto

echo
echo "Talk to it: RK_GEMMA_LIBRKLLMRT=$library $rk_gemma chat $bundle --temperature 0"
