#!/usr/bin/env bash
# A run on TPU slices that are asked for and waited for (queued resources), one or several, on demand or spot.
#
#   ./queued_resource.sh request   puts the request into the queue; every slice runs the command when it is there
#   ./queued_resource.sh show      says how far the request is
#   ./queued_resource.sh log       follows the log of host 0
#   ./queued_resource.sh delete    gives the slices back
#
# Every host runs the startup script at its start, also after a preemption: the run then goes on from its newest
# checkpoint. Several slices become one mesh; mesh.preset=multislice shares the batch between them and keeps the
# experts inside each.
set -euo pipefail

NAME=nmt-m4                                 # name of the request and of its slices
PROJECT=my-project
ZONE=us-east5-a
TYPE=v5p-2048                               # accelerator type of one slice
VERSION=v2-alpha-tpuv5                      # runtime version that goes with the type
SLICES=2                                    # how many slices
PRICE=--spot                                # --spot, --reserved, or empty for on demand
COMMAND='nmt-train recipe=m4_600b mesh.preset=multislice run_dir=gs://my-bucket/runs/m4_600b'
ENVIRONMENT="M4_FILES='gs://my-bucket/m4/{source}-{target}.{language}.zst'"
PACKAGE='nmt-moe[tpu,gcs]'

queue() { gcloud compute tpus queued-resources "$@" --project="$PROJECT" --zone="$ZONE"; }

startup() {
    cat <<SCRIPT
#!/usr/bin/env bash
python3 -m venv /opt/nmt && /opt/nmt/bin/pip install --quiet '$PACKAGE'
# 75 means that another host was lost, 130 that one was told to stop: both go on when all hosts start again.
until env $ENVIRONMENT /opt/nmt/bin/$COMMAND >> /var/log/nmt.log 2>&1; do
    [[ \$? == 75 || \$? == 130 ]] || exit 1
    sleep 10
done
SCRIPT
}

case ${1:-} in
request)
    script=$(mktemp)
    trap 'rm -f "$script"' EXIT
    startup >"$script"
    nodes=(--node-id="$NAME")
    ((SLICES == 1)) || nodes=(--node-prefix="$NAME" --node-count="$SLICES")
    # shellcheck disable=SC2086 # PRICE may be empty
    queue create "$NAME" "${nodes[@]}" --accelerator-type="$TYPE" --runtime-version="$VERSION" $PRICE \
        --metadata-from-file=startup-script="$script"
    ;;
show) queue describe "$NAME" --format='value(state.state)' ;;
log)
    first=$NAME
    ((SLICES == 1)) || first=$NAME-0
    gcloud compute tpus tpu-vm ssh "$first" --project="$PROJECT" --zone="$ZONE" --worker=0 \
        --command='sudo tail -n 100 -F /var/log/nmt.log'
    ;;
delete) queue delete "$NAME" --force --quiet ;;
*) grep '^#   ' "$0" >&2; exit 2 ;;
esac
