#!/usr/bin/env bash
# A run on TPU slices of a Google Kubernetes Engine cluster, through XPK (pip install xpk).
#
#   ./xpk.sh image     builds the image and pushes it
#   ./xpk.sh start     starts the run; the same again goes on with it
#   ./xpk.sh stop      ends it, with a checkpoint if the grace period is long enough
#
# GKE tells every pod which worker it is (TPU_WORKER_ID, TPU_WORKER_HOSTNAMES, MEGASCALE_*): JAX finds the others.
set -euo pipefail

NAME=nmt-m4                                 # name of the workload
PROJECT=my-project
ZONE=us-east5-a
CLUSTER=my-cluster                          # made by `xpk cluster create`
TYPE=v5p-2048                               # slice type, as XPK calls it
SLICES=1
IMAGE=europe-docker.pkg.dev/my-project/nmt/nmt:latest
COMMAND='nmt-train recipe=m4_600b run_dir=gs://my-bucket/runs/m4_600b'
FILES='gs://my-bucket/m4/{source}-{target}.{language}.zst'
PACKAGE='nmt-moe[tpu,gcs]'

case ${1:-} in
image)
    docker build --tag "$IMAGE" - <<DOCKERFILE
FROM python:3.12-slim
RUN pip install --no-cache-dir '$PACKAGE'
DOCKERFILE
    docker push "$IMAGE"
    ;;
start)
    # Restarts: a pod that ends with 75 (another host was lost) or 130 (told to stop) starts again with all others.
    xpk workload create --workload="$NAME" --project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER" \
        --tpu-type="$TYPE" --num-slices="$SLICES" --docker-image="$IMAGE" --max-restarts=100 \
        --env="M4_FILES=$FILES" --command="$COMMAND"
    ;;
stop) xpk workload delete --workload="$NAME" --project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER" ;;
*) grep '^#   ' "$0" >&2; exit 2 ;;
esac
