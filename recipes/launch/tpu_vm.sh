#!/usr/bin/env bash
# A run on a TPU slice made of TPU VMs: makes it, installs nmt on every host, starts the same command on all of them.
#
#   ./tpu_vm.sh create     makes the slice
#   ./tpu_vm.sh install    installs nmt on all hosts
#   ./tpu_vm.sh start      starts the run, or goes on with it; the log of host 0 follows
#   ./tpu_vm.sh stop       ends it with a checkpoint
#   ./tpu_vm.sh delete     gives the slice back
#
# Fill in the six lines below. JAX finds out from the machines which of them is which: nothing else has to be said.
set -euo pipefail

NAME=nmt-m4                                 # name of the slice
PROJECT=my-project                          # Google Cloud project
ZONE=europe-west4-a                         # a zone that has such TPUs
TYPE=v3-2048                                # accelerator type: cores for v2 to v5p, chips for v5litepod and v6e
VERSION=tpu-ubuntu2204-base                 # runtime: v2-alpha-tpuv5, v2-alpha-tpuv5-lite or v2-alpha-tpuv6e for those
COMMAND='nmt-train recipe=m4_600b run_dir=gs://my-bucket/runs/m4_600b'

# What has to be in the environment of the command; host 0 alone reads the corpora.
ENVIRONMENT="M4_FILES='gs://my-bucket/m4/{source}-{target}.{language}.zst'"
PACKAGE='nmt-moe[tpu,gcs]'                  # or a wheel that the hosts can reach

tpu() { gcloud compute tpus tpu-vm "$@" --project="$PROJECT" --zone="$ZONE"; }
on_all() { tpu ssh "$NAME" --worker=all --command="$1"; }

case ${1:-} in
create) tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" ;;
install) on_all "python3 -m venv ~/nmt && ~/nmt/bin/pip install --quiet '$PACKAGE'" ;;
start)
    # setsid: the run outlives the connection. Log lines of the other hosts are few, and stay on them.
    on_all "cd ~ && env $ENVIRONMENT setsid nohup ~/nmt/bin/$COMMAND >> ~/nmt.log 2>&1 < /dev/null & sleep 1"
    tpu ssh "$NAME" --worker=0 --command='tail -n 100 -F ~/nmt.log'
    ;;
stop) on_all "pkill -TERM -f nmt-train || true" ;; # one host would do: it tells the others
delete) tpu delete "$NAME" --quiet ;;
*) grep '^#   ' "$0" >&2; exit 2 ;;
esac
