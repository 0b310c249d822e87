#!/bin/sh
# All that is to be asked of a card, in at most eight minutes:
#
#     sh benchmarks/gpu_session.sh OUT [DEVICE [SECONDS [tiny]]]
#     sh benchmarks/gpu_session.sh /tmp/out cpu 480 tiny     # every line of it, without a card
#
# Each part writes a file of its own into OUT and has a limit, so that what is there when time ends
# can be read. In the order of what is most wanted: the table of benchmarks.gpu, the tests marked
# gpu, precisions layer by layer, and with the time that is left tries of benchmarks.vgg16_c6.
set -u
OUT=$1 DEVICE=${2:-cuda} SECONDS_IN_ALL=${3:-480} TINY=${4:-}
PYTHON=${PYTHON:-python}
BEGAN=$(date +%s)
mkdir -p "$OUT"

left() { echo $((SECONDS_IN_ALL - $(date +%s) + BEGAN)); }

part() { # NAME LIMIT COMMAND...: what runs out of time keeps what it has printed
    name=$1 limit=$2
    shift 2
    [ "$(left)" -lt "$limit" ] && limit=$(left)
    [ "$limit" -lt 5 ] && { echo "$name: no time was left" | tee -a "$OUT/session.txt"; return; }
    first=$(date +%s)
    timeout -s INT -k 10 "$limit" "$@" > "$OUT/$name.txt" 2>&1
    echo "$name: status $?, $(($(date +%s) - first)) s" | tee -a "$OUT/session.txt"
}

: > "$OUT/session.txt"
if [ "$TINY" = tiny ]; then
    part gpu 300 "$PYTHON" -m benchmarks.gpu --device "$DEVICE" --tiny --out "$OUT" --profile \
        --seconds 280
    part precision 60 "$PYTHON" -m benchmarks.precision --device "$DEVICE" --model alexnet \
        --canvas 64 --grid 2x1 --objects 2 --precision bfloat16
    part c6 90 "$PYTHON" -m benchmarks.vgg16_c6 --out "$OUT/c6" --device "$DEVICE" --scale quick \
        --max-steps 2 --seconds 60
else
    part gpu 330 "$PYTHON" -m benchmarks.gpu --device "$DEVICE" --out "$OUT" --profile --seconds 320
    part tests 90 "$PYTHON" -m pytest -n 0 -q -m gpu tests/gpu tests/analyzer/test_on_device.py
    part precision 40 "$PYTHON" -m benchmarks.precision --device "$DEVICE" --grid 2x2 \
        --precision tf32 bfloat16
    part c6 "$(left)" "$PYTHON" -m benchmarks.vgg16_c6 --out "$OUT/c6" --device "$DEVICE" \
        --seconds "$(left)"
fi
cat "$OUT/session.txt"
