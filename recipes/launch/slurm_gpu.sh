#!/usr/bin/env bash
# A run on GPUs of a SLURM cluster: sbatch slurm_gpu.sh
#
# One task a GPU, as JAX wants it under SLURM: every task takes the GPU of its own number on its node. JAX finds the
# others from SLURM's variables, so the command is that of a single machine. Fill in the lines of #SBATCH and COMMAND.
#SBATCH --job-name=nmt
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --output=nmt-%j.log
#SBATCH --open-mode=append
# SIGTERM five minutes before the time is over: the run ends with a checkpoint.
#SBATCH --signal=TERM@300
#SBATCH --requeue
set -euo pipefail

# The environment that nmt is installed in (pip install nmt-moe 'jax[cuda13]'), and a folder that all nodes share.
ENVIRONMENT=$HOME/nmt
SHARED=/shared/$USER
COMMAND=(nmt-train recipe=quickstart "run_dir=$SHARED/runs/quickstart")

export PATH=$ENVIRONMENT/bin:$PATH
export NMT_CACHE=$SHARED/cache

status=0
# --kill-on-bad-exit: if a task dies in a way that the others cannot see, SLURM ends them.
srun --kill-on-bad-exit=1 "${COMMAND[@]}" || status=$?
# 75: a node was lost; 130: told to stop (time, preemption). Both go on where they stopped.
if [[ $status == 75 || $status == 130 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
