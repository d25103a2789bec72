#!/usr/bin/env bash
#SBATCH --requeue
# A run over a Slurm array; the arguments are those of `tagclip run`:
#   sbatch --array=1-16 --gres=gpu:1 --cpus-per-task=8 tools/slurm_run.sh --images photos --classes cat,dog --out runs/mine
# A task that was taken away and started again resumes its part; the last one merges the run.
set -euo pipefail
: "${SLURM_ARRAY_TASK_ID:?start this with sbatch --array=1-N}"
first=${SLURM_ARRAY_TASK_MIN:-1}
exec "${TAGCLIP:-tagclip}" run "$@" --shard "$((SLURM_ARRAY_TASK_ID - first + 1))/${SLURM_ARRAY_TASK_COUNT:?}"
