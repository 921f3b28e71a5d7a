#!/usr/bin/env bash
# A run on several machines through Open MPI 4, one process a machine: ./openmpi.sh
#
# MPI only starts the processes; they talk through JAX, which recognises Open MPI 4: one process a GPU could do without
# the last lines. They pass the numbers on as distributed.*, for one process with all devices of its machine, for Open
# MPI 5, and for MPIs of the MPICH family (PMI_RANK).
set -euo pipefail

HOSTS=node1,node2,node3,node4               # machines; all have nmt in the same place
PROCESSES=4
COORDINATOR=node1:8476                      # the first of them, and a port that is free and open on it
SHARED=/shared/nmt                          # a folder that all machines share
COMMAND=(nmt-train recipe=quickstart "run_dir=$SHARED/runs/quickstart")

# shellcheck disable=SC2016 # the variables are those of the processes
exec mpirun --host "$HOSTS" -n "$PROCESSES" --map-by ppr:1:node --bind-to none \
    bash -c 'exec "$@" distributed.coordinator='"$COORDINATOR"' distributed.processes='"$PROCESSES"' \
        distributed.process="${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"' nmt "${COMMAND[@]}"
