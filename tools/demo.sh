#!/usr/bin/env bash
# The whole road on the embedded demo model, no download: drawn scenes -> tags -> masks -> DeepLab -> scores and pictures.
#   DEMO_OUT=     folder for everything (default runs/demo); the same call resumes one that was interrupted
#   DEMO_SCENES=  training scenes (default 100); the held-out scenes are a quarter of them
#   DEMO_STEPS=   DeepLab training iterations (default 400); 0 leaves the training out
#   DEMO_MASKS=   config of the masks (default demo/masks_fused; demo/masks has class activation maps alone)
set -euo pipefail
. "$(dirname "$0")/setup_env.sh"
cd "$ROOT"
OUT=${DEMO_OUT:-runs/demo}
SCENES=${DEMO_SCENES:-100}
STEPS=${DEMO_STEPS:-400}
MASKS=${DEMO_MASKS:-demo/masks_fused}
HELD_OUT=$(((SCENES + 3) / 4))
say() { printf '\n== %s\n' "$*"; }

say "$SCENES scenes in the styles the demo model knows, $HELD_OUT in a style it never saw"
[ -e "$OUT/scenes/train_scenes.json" ] || "$PY" tools/make_demo_scenes.py --out "$OUT/scenes" --count "$SCENES" --seed 11 --styles noto twemoji fluent-flat
[ -e "$OUT/held_out/val_scenes.json" ] || "$PY" tools/make_demo_scenes.py --out "$OUT/held_out" --count "$HELD_OUT" --seed 12 --split val

say "tags, class maps and CRF masks, from pictures and class names alone"
"$PY" tools/pipeline.py --config "$MASKS" --images "$OUT/scenes/JPEGImages" --out "$OUT/run"
"$PY" tools/evaluate.py tags --tags "$OUT/run/tags.jsonl" --labels "$OUT/scenes/train_labels.txt" --json "$OUT/tags.json"
"$PY" tools/evaluate.py masks --run "$OUT/run" --ground-truth "$OUT/scenes/SegmentationClass" --json "$OUT/masks.json"
"$PY" tools/visualize.py --run "$OUT/run" --out "$OUT/masks.png" --limit 6

if [ "$STEPS" -gt 0 ]; then
  say "DeepLab, trained on those masks, judged on scenes in the held-out style"
  "$PY" tools/train_segmentor.py --config demo/segmentation --run "$OUT/run" --val "$OUT/held_out" --iterations "$STEPS"
  CHECKPOINT=$("$PY" -c 'import json, sys; print(json.load(open(sys.argv[1]))["checkpoint"])' "$OUT/run/segmentation/summary.json")
  "$PY" tools/segment.py --checkpoint "$CHECKPOINT" --images "$OUT/held_out/JPEGImages" --out "$OUT/predictions" --overwrite
fi

say "one table, one picture"
"$PY" tools/demo_report.py --run "$OUT"
say "done: $OUT/demo.png shows scenes, true masks and answers, $OUT/masks.png the class maps; $OUT/run holds the rest"
